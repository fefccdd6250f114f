"""Which adapters a scorer knows, and which it serves: folds the adapters and control topics, record by record.

Pure. A record that cannot be used changes nothing: the running adapter stays, and the problem is handed back once.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from shared.adapters import ADAPTERS_KEPT, Adapter, check_record, first_adapter, unpack
from shared.bundle import Bundle
from shared.errors import Refused
from shared.forward import Folded, Network, probabilities
from shared.kafka import Taken
from shared.records import FIRST_VERSION, Control, decode
from shared.signing import Seal

TRIED_ROWS = 128
KEPT_BYTES_MAX = 128 * 1024 * 1024  # not looked into yet; beyond, each is at once
_FOLLOWED = (b"active", b"candidate", b"pin")


class View(msgspec.Struct, frozen=True):
    """What a turn is scored with; never changes. loaded and refused: by version; one that is only kept is in
    neither."""

    active: Folded
    candidate: Folded | None
    loaded: Mapping[str, Folded]
    refused: Mapping[str, str]


class Problem(msgspec.Struct, frozen=True):
    """A record of the adapters or control topic that cannot be used."""

    record: str  # topic/partition/offset
    version: str | None  # of the adapter that cannot be served; None where none is lost
    reason: str
    field: str | None


class Catalog:
    """keep: most adapters kept, the oldest not in use goes first. seal: checks who published a record.

    Most adapters are never served. So of one that nobody names only size, key, bundle and hash are checked, and its
    record is kept as it came; it is unpacked, folded and tried when it is first named, or by look_at_one.
    """

    def __init__(self, bundle: Bundle, network: Network, keep: int = ADAPTERS_KEPT, seal: Seal | None = None) -> None:
        self._bundle, self._network, self._keep, self._seal = bundle, network, keep, seal or Seal()
        first = Folded.of(first_adapter(bundle), network)
        self._loaded: dict[str, Folded] = {FIRST_VERSION: first}
        self._kept: dict[str, Taken] = {}  # not looked into yet
        self._kept_bytes = 0
        self._digest: dict[str, bytes] = {}  # of all these but the first, in the order they came
        self._refused: dict[str, str] = {}
        self._named: dict[str, str | None] = {}  # control setting to version
        self._active = first

    def adapter(self, record: Taken) -> Problem | None:
        """Take one adapters record; a record without a value takes the version away, unless it is in use."""
        version = (record.key or b"").decode("utf-8", "replace")
        if (stranger := self._unsigned(record)) is not None:
            return stranger
        if record.value is None:
            if version not in self._in_use():
                self._forget(version)
            return None
        try:
            digest = check_record(record.key, record.value, record.headers, self._bundle)
        except Refused as refused:
            known = version == FIRST_VERSION or version in self._digest
            return _problem(record, None, refused) if known else self._refuse(record, version, refused)
        before = None
        if self._digest.get(version, digest) != digest:
            before = self.look_into(version)
            if version in self._loaded:
                return _problem(record, None, Refused(f"{version} is loaded already, with other bytes", "version"))
        self._keep_raw(version, record, digest)
        full = self._kept_bytes > KEPT_BYTES_MAX
        return self.look_into(version) if full or version in self._in_use() else before

    def look_into(self, version: str) -> Problem | None:
        """Somebody names this version: load it, if it is here and was only kept so far."""
        record = self._kept.get(version)
        if record is None:
            return None
        self._drop_raw(version)
        try:
            folded = self._fold(unpack(record.key, record.value, record.headers, self._bundle))
        except Refused as refused:
            self._forget(version)
            return self._refuse(record, version, refused)
        self._loaded[version] = folded
        self._choose()
        return None

    def unread(self) -> bool:
        """Whether any was only kept so far."""
        return bool(self._kept)

    def look_at_one(self) -> Problem | None:
        """Load the oldest that was only kept so far: for whoever has nothing else to do."""
        return self.look_into(next(iter(self._kept), ""))

    def control(self, record: Taken) -> Problem | None:
        """Follow one control record; settings that are not ours are passed over. The problem may be the named
        adapter's."""
        if record.key not in _FOLLOWED:
            return None
        setting = record.key.decode()
        if (stranger := self._unsigned(record)) is not None:
            return stranger
        try:
            order = None if record.value is None else decode(Control, record.value)
            if order is not None and order.setting != setting:
                raise Refused(f"the key says {setting}, the value {order.setting}", "setting")
        except Refused as refused:
            return _problem(record, None, refused)
        version = None if order is None else order.version
        self._named[setting] = version
        problem = self.look_into(version or "")
        self._choose()
        return problem

    def view(self) -> View:
        """As it stands now."""
        candidate = self._loaded.get(self._named.get("candidate") or "")
        return View(self._active, candidate, dict(self._loaded), dict(self._refused))

    def _unsigned(self, record: Taken) -> Problem | None:
        """A stranger's record says nothing of a version: nobody waits for it less, and none is taken back for it."""
        try:
            self._seal.check(record)
        except Refused as refused:
            return _problem(record, None, refused)
        return None

    def _fold(self, adapter: Adapter) -> Folded:
        """Raises Refused for weights that are finite but so large that the answers are not."""
        with np.errstate(over="ignore", invalid="ignore"):
            folded = Folded.of(adapter, self._network)
        answers = probabilities(self._bundle.reference_x[:TRIED_ROWS], self._network, [folded])[1]
        if not (np.isfinite(folded.v).all() and np.isfinite(folded.c) and np.isfinite(answers).all()):
            raise Refused("its answers to the bundle's own rows are not finite numbers")
        return folded

    def _wanted(self) -> str:
        return self._named.get("pin") or self._named.get("active") or FIRST_VERSION

    def _choose(self) -> None:
        """A version that is not there (yet) leaves the running one in place."""
        self._active = self._loaded.get(self._wanted(), self._active)

    def _in_use(self) -> set[str]:
        return {FIRST_VERSION, self._active.version, self._wanted(), *(v for v in self._named.values() if v)}

    def _keep_raw(self, version: str, record: Taken, digest: bytes) -> None:
        """As the newest; what is loaded stays so."""
        if version in self._digest:
            return
        self._digest[version] = digest
        self._kept[version] = record
        self._kept_bytes += len(record.value or b"")
        self._refused.pop(version, None)
        used = self._in_use()
        while len(self._digest) >= self._keep and (old := next((v for v in self._digest if v not in used), None)):
            self._forget(old)

    def _drop_raw(self, version: str) -> None:
        if (record := self._kept.pop(version, None)) is not None:
            self._kept_bytes -= len(record.value or b"")

    def _refuse(self, record: Taken, version: str, refused: Refused) -> Problem:
        self._refused[version] = str(refused)
        if len(self._refused) > self._keep:
            del self._refused[next(iter(self._refused))]
        return _problem(record, version, refused)

    def _forget(self, version: str) -> None:
        self._drop_raw(version)
        for known in (self._loaded, self._digest, self._refused):
            known.pop(version, None)


def _problem(record: Taken, version: str | None, refused: Refused) -> Problem:
    return Problem(f"{record.topic}/{record.partition}/{record.offset}", version, refused.reason, refused.field)
