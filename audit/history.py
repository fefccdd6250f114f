"""Which version control had in force when, and whether a prediction's version fits.

A scorer learns of a control record some time after it was written, and nothing on a predictions record says which
scorer made it. So two things are asserted of a batch that names no version itself: its version was in force at some
moment of the last `lag_s` before the prediction was written; and, where only one scorer ever ran, the versions of one
partition follow control in its order, never back. Timestamps are the writers' clocks: `skew_s` is how far those may
differ.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import NamedTuple

from audit.contract import json_object
from audit.log import Record
from audit.network import FIRST_VERSION

FOREVER = 2**62


class Order(NamedTuple):
    """One control record that names a version (None: none). values: of setting thresholds."""

    setting: str
    version: str | None
    previous: str | None
    by: str
    batch_id: str | None
    values: Mapping[str, float] | None
    record: Record


class Moment(NamedTuple):
    """From from_ms to to_ms a scorer might serve any of `versions`."""

    from_ms: int
    to_ms: int
    versions: frozenset[str]


def read_order(record: Record) -> Order | None:
    """None for a record that scorers pass over, too: not JSON, or another setting than its key says."""
    setting = (record.key or b"").decode("utf-8", "replace")
    body = json_object(record.value) if record.value is not None else {"setting": setting}
    if body is None or body.get("setting") != setting:
        return None
    named = {k: v if isinstance(v := body.get(k), str) else None for k in ("version", "previous", "batch_id")}
    values = body.get("values")
    return Order(
        setting, named["version"], named["previous"], str(body.get("by", "")), named["batch_id"],
        values if isinstance(values, dict) else None, record,
    )  # fmt: skip


class History:
    """orders: the control topic, in order. published: when each usable version came (its record's at_ms). refused:
    versions that some scorer said it could not load."""

    def __init__(
        self, orders: list[Order], published: Mapping[str, int], refused: Collection[str], *, lag_s: float = 60.0,
        skew_s: float = 1.0, one_scorer: bool = False,
    ) -> None:  # fmt: skip
        self._lag_ms, self._skew_ms, self._one_scorer = int(lag_s * 1000), int(skew_s * 1000), one_scorer
        self._served = _moments([o for o in orders if o.setting != "candidate"], published, refused)
        self._tried = [(o.record.at_ms, o.version) for o in orders if o.setting == "candidate" and o.version]
        self._ends = [moment.to_ms for moment in self._served]
        self._reached: dict[int, int] = {}  # per partition, the moment that its newest prediction was matched to

    def serves(self, version: str, at_ms: int, partition: int) -> bool:
        """Of a prediction written at at_ms, asked in the order of its partition's source offsets."""
        first = self._reached.get(partition, 0) if self._one_scorer else 0
        for i in range(max(first, bisect_left(self._ends, at_ms - self._lag_ms)), len(self._served)):
            moment = self._served[i]
            if moment.from_ms > at_ms + self._skew_ms:
                return False
            if version in moment.versions:
                self._reached[partition] = i
                return True
        return False

    def near(self, at_ms: int) -> set[str]:
        """Versions that a scorer might have served at that time."""
        first = bisect_left(self._ends, at_ms - self._lag_ms)
        return {v for m in self._served[first:] if m.from_ms <= at_ms + self._skew_ms for v in m.versions}

    def tries(self, version: str, at_ms: int) -> bool:
        """Of a candidate's probabilities."""
        return any(v == version and since <= at_ms + self._skew_ms for since, v in self._tried)


def _moments(orders: list[Order], published: Mapping[str, int], refused: Collection[str]) -> list[Moment]:
    """A version that is not there yet, or that a scorer refuses, leaves the running one in place."""
    named: dict[str, str | None] = {}
    changes: list[tuple[int, str]] = [(-FOREVER, FIRST_VERSION)]
    if orders and orders[0].setting == "active" and orders[0].previous:
        changes.append((-FOREVER, orders[0].previous))  # the topic was compacted: what came before is known by this
    for order in orders:
        if order.setting in ("active", "pin"):
            named[order.setting] = order.version
            changes.append((order.record.at_ms, named.get("pin") or named.get("active") or FIRST_VERSION))
    moments: list[Moment] = []
    running: frozenset[str] = frozenset((FIRST_VERSION,))
    for i, (since, version) in enumerate(changes):
        until = changes[i + 1][0] if i + 1 < len(changes) else FOREVER
        since = max(since, moments[-1].from_ms) if moments else since
        usable = version == FIRST_VERSION or version in published
        if usable and version not in refused and published.get(version, -FOREVER) <= since:
            running = frozenset((version,))
        else:
            running = running | {version}
        moments.append(Moment(since, max(until, since), running))
    return moments
