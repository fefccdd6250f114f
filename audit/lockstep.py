"""Where every batch was sent in lockstep under policy `reference`, the versions follow from the rows alone: heals,
health and rollbacks are played again. Part of rule `causes`; and of `versions`: each batch names the version that the
row before it gave."""

from __future__ import annotations

from typing import Any, NamedTuple

from audit.answers import Answered
from audit.events import Events
from audit.history import Order
from audit.metrics import Metrics, Row
from audit.network import FIRST_VERSION
from audit.report import Report

FIRST_JUDGED = 3


class _Score(NamedTuple):
    f1: float
    accuracy: float


class Named:
    """The versions that lockstep batches named in their header."""

    def __init__(self) -> None:
        self._by_batch: dict[str, tuple[str | None, str]] = {}

    def add(self, answered: Answered) -> None:
        """An input; kept where it is a lockstep batch."""
        record = answered.record
        if record.headers.get("lockstep") == b"1" and answered.batch is not None:
            named = record.headers.get("adapter")
            version = None if named is None else named.decode("utf-8", "replace")
            self._by_batch[answered.batch.batch_id] = version, record.where

    def check(self, report: Report, metrics: Metrics) -> None:
        """The header of each against next_version of the lockstep row before it, within one run."""
        before: Row | None = None
        for idx in sorted(metrics.rows):
            row = metrics.rows[idx]
            version, where = self._by_batch.get(row.batch_id, (None, ""))
            if before is not None and where and version is not None and _run(before.batch_id) == _run(row.batch_id):
                after = before.body["next_version"]
                why = f"batch {row.batch_id} names {version}, the row of {before.batch_id} says {after}"
                report.check("versions", version == after, where, why)
            before = row if where else before


def _run(batch_id: str) -> str:
    return batch_id.rpartition("-")[0]


def check_causes(report: Report, events: Events, orders: list[Order], metrics: Metrics) -> None:
    """Nothing where it does not apply: other policies, thresholds that changed, versions that a scorer refused."""
    limits = [dict(o.values) for o in orders if o.setting == "thresholds" and o.values]
    if (
        not metrics.lockstep()
        or events.policies != {"reference"}
        or len({tuple(sorted(x.items())) for x in limits}) != 1
    ):
        return
    if any(True for _ in events.of("adapter-rejected")) or min(metrics.rows) != 1:
        return
    if any(s.text("previous_bundle") for s in events.of("adapter-activated")):
        return
    made = {int(n): s for s in events.of("adapter-activated") if (n := s.number("batch_idx")) is not None}
    play = _Play(limits[0])
    for idx in sorted(metrics.rows):
        row = metrics.rows[idx].body
        if not row["settled"]:
            continue
        said = made.get(idx)
        back = play.row(row, said.text("version") if said else None)
        why = f"batch {idx}: {_what(row)}, played again: active {play.active}{', rolled back' if back else ''}"
        same = row["next_version"] == play.active and bool(row["rolled_back"]) == back
        if not report.check("causes", same, metrics.rows[idx].where, why):
            return  # everything after it rests on it


def _what(row: dict[str, Any]) -> str:
    return f"action {row['action']}, next_version {row['next_version']}, rolled_back {row['rolled_back']}"


class _Play:
    """protocol.md, Deciding; reference-experiment's health window."""

    def __init__(self, limits: dict[str, float]) -> None:
        self._limits, self.active = limits, FIRST_VERSION
        self._baseline: _Score | None = None
        self._window: list[_Score] = []
        self._entries: list[tuple[float, int, str]] = []  # F1, batch, version

    def row(self, row: dict[str, Any], healed: str | None) -> bool:
        """One settled row; whether it rolls back. healed: the version that a heal of this batch made."""
        if healed is not None:
            self.active = healed
            if row["f1_post_heal"] is None or row["accuracy_post_heal"] is None:
                return False
            self._entries.append((row["f1_post_heal"], row["batch_idx"], healed))
            return self._scored(_Score(row["f1_post_heal"], row["accuracy_post_heal"]))
        if row["action"] == "heal-failed" or self._baseline is None or row["adapter_version"] != self.active:
            return False
        if row["f1_healed"] is None or row["accuracy_healed"] is None:
            return False
        return self._scored(_Score(row["f1_healed"], row["accuracy_healed"]))

    def _scored(self, score: _Score) -> bool:
        self._baseline = self._baseline or score
        self._window = [*self._window, score][-int(self._limits["health_window"]) :]
        n = len(self._window)
        f1, accuracy = sum(s.f1 for s in self._window) / n, sum(s.accuracy for s in self._window) / n
        fell = f1 < self._baseline.f1 - self._limits["rollback_f1_drop"]
        fell = fell or accuracy < self._baseline.accuracy - self._limits["rollback_acc_drop"]
        if n < FIRST_JUDGED or not fell:
            return False
        self._window = []
        best = max(self._entries)[2]
        if best == self.active:
            return False
        self.active = best
        return True
