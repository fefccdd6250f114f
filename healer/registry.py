"""The adapters that were published, by version, and the number that comes next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from shared.adapters import Adapter, first_adapter, unpack
from shared.bundle import Bundle
from shared.errors import Refused
from shared.kafka import Deadline, Fetcher, Follower, Taken
from shared.records import FIRST_VERSION, OffsetRange
from shared.signing import Seal

KEPT = 500  # in memory, 100 kB each at 64 hidden; older ones are read again when a rollback goes that far
_VERSION = re.compile(rb"v([1-9][0-9]{0,17})")


class Registry:
    """Follows the adapters topic. Belongs to one thread, like the clients in it. seal: checks who published
    an entry."""

    def __init__(
        self, kafka: Mapping[str, Any], topic: str, bundle: Bundle, *, name: str, budget_s: float,
        seal: Seal | None = None,
    ) -> None:  # fmt: skip
        self._bundle, self._budget_s, self._seal = bundle, budget_s, seal or Seal()
        self._first = first_adapter(bundle)
        self._newest: dict[str, Adapter] = {}
        self._places: dict[str, OffsetRange] = {}  # of every version, about 300 bytes each
        self._highest = int(FIRST_VERSION[1:])
        self._fetcher = Fetcher(kafka, f"{name}-registry-fetch")
        self._follower = Follower(kafka, [topic], name=f"{name}-registry", budget_s=budget_s)

    def poll(self) -> None:
        """Take in what has come; does not wait."""
        self._see(self._follower.take(0, most=100))

    def refresh(self) -> None:
        """Take in everything committed before this call. Raises TimedOut when nothing comes for the budget."""
        for record in self._follower.catch_up(self._budget_s):
            self._see([record])

    def next_versions(self, count: int) -> list[str]:
        """The numbers after the highest key on the topic, whoever published it and for whichever bundle."""
        return [f"v{self._highest + 1 + i}" for i in range(count)]

    def add(self, adapters: Sequence[Adapter]) -> None:
        """What this process has just committed, which the topic may show a little later."""
        for adapter in adapters:
            self._keep(adapter)
            self._count(adapter.version.encode())

    def get(self, version: str) -> Adapter:
        """A checked adapter. Raises Refused: never published, gone, or not fit for this bundle; TimedOut."""
        if version == FIRST_VERSION:
            return self._first
        if version not in self._newest and version not in self._places:
            self.refresh()
        if version in self._newest:
            return self._newest[version]
        if version not in self._places:
            raise Refused(f"base-unknown: {version} is not on the adapters topic", "base_version")
        found = self._fetcher.fetch(self._places[version], Deadline(self._budget_s))
        if not found:
            raise Refused(f"base-gone: {version} is no longer on the adapters topic", "base_version")
        try:
            return self._open(found[0])
        except Refused as exc:
            raise Refused(f"base-refused: {version}: {exc}", "base_version") from exc

    def close(self) -> None:
        """Close both clients."""
        self._follower.close()
        self._fetcher.close()

    def _see(self, records: Sequence[Taken]) -> None:
        for record in records:
            if not self._count(record.key):
                continue  # a key that is no version can be nobody's base
            version = (record.key or b"").decode()
            place = OffsetRange(
                topic=record.topic, partition=record.partition, start=record.offset, end=record.offset + 1
            )
            try:
                self._seal.check(record)
            except Refused:  # a stranger's: it takes no good entry's place
                self._places.setdefault(version, place)
                continue
            self._newest.pop(version, None)
            self._places[version] = place
            with suppress(Refused):  # the scorers publish why; whoever heals from it hears it from get()
                self._keep(self._open(record))

    def _open(self, record: Taken) -> Adapter:
        """Raises Refused."""
        self._seal.check(record)
        return unpack(record.key, record.value, record.headers, self._bundle)

    def _keep(self, adapter: Adapter) -> None:
        self._newest[adapter.version] = adapter
        while len(self._newest) > KEPT:
            del self._newest[next(iter(self._newest))]

    def _count(self, key: bytes | None) -> bool:
        number = _VERSION.fullmatch(key or b"")
        if number is None:
            return False
        self._highest = max(self._highest, int(number[1]))
        return True
