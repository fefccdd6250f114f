"""What a pipeline's topics tell, as a story in five phases. Pure: records go in, words and numbers come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from statistics import fmean

from shared.records import FIRST_VERSION, Event, Metrics

LIFT_AFTER = 4  # batches served by an adapter before we speak of what it brought
SILENT = ("service-started", "service-stopped", "heal-finished")  # said by other events as well


class Phase(IntEnum):
    """Where the story stands."""

    CLEAN = 0
    DRIFT = 1
    DETECT = 2
    HEAL = 3
    LIFT = 4


TITLES = {
    Phase.CLEAN: "clean",
    Phase.DRIFT: "drift",
    Phase.DETECT: "noticed",
    Phase.HEAL: "healing",
    Phase.LIFT: "lift",
}


@dataclass(frozen=True)
class Plan:
    """What the demo streams. drift_from: the first drifted batch. threshold: FIDI's."""

    batches: int
    drift_from: int
    threshold: float = 1.0


@dataclass
class Story:
    """rows by batch_idx, as last written; events as they came, without the silent ones."""

    plan: Plan
    rows: dict[int, Metrics] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def add_row(self, row: Metrics) -> bool:
        """Take a metrics row in; whether it settles its batch (for the first time)."""
        before = self.rows.get(row.batch_idx)
        self.rows[row.batch_idx] = row
        return row.settled and not (before is not None and before.settled)

    def add_event(self, event: Event) -> bool:
        """Take an event in; whether it is worth a line."""
        if event.kind in SILENT:
            return False
        self.events.append(event)
        return True

    @property
    def newest(self) -> Metrics | None:
        return self.rows[max(self.rows)] if self.rows else None

    @property
    def settled(self) -> int:
        """Batches about which nothing is still to come."""
        return sum(row.settled for row in self.rows.values())

    @property
    def active(self) -> str:
        """The version that is served now."""
        done = [row for _, row in sorted(self.rows.items()) if row.settled]
        return done[-1].next_version if done else FIRST_VERSION

    def scored(self, first: int = 1, last: int | None = None) -> list[Metrics]:
        """Rows of the batches first..last whose labels are known, in order."""
        end = self.plan.batches if last is None else last
        return [r for i, r in sorted(self.rows.items()) if first <= i <= end and r.accuracy_healed is not None]

    def served_by_adapter(self) -> list[Metrics]:
        """Drifted batches that were scored by an adapter the healer made."""
        return [r for r in self.scored(self.plan.drift_from) if r.adapter_version != FIRST_VERSION]

    def first_sign(self) -> Event | None:
        """What the monitor noticed first about the drift."""
        for event in self.events:
            batch = event.facts.get("batch_idx")
            noticed = event.kind in ("drift-detected", "heal-requested")
            if noticed and isinstance(batch, int) and batch >= self.plan.drift_from:
                return event
        return None

    @property
    def phase(self) -> Phase:
        newest = self.newest
        if newest is None or newest.batch_idx < self.plan.drift_from:
            return Phase.CLEAN
        healed = len(self.served_by_adapter())
        if healed >= LIFT_AFTER:
            return Phase.LIFT
        if healed or self.active != FIRST_VERSION:
            return Phase.HEAL
        return Phase.DETECT if self.first_sign() is not None else Phase.DRIFT

    def explanation(self) -> str:
        """What happens now, for somebody who sees this for the first time."""
        return _EXPLAIN[self.phase](self)


def percent(value: float | None) -> str:
    """72% for 0.724."""
    return "-" if value is None else f"{value:.0%}"


def mean(rows: Sequence[Metrics], column: str) -> float | None:
    """Of a column over the rows that have it."""
    values = [v for r in rows if (v := getattr(r, column)) is not None]
    return fmean(values) if values else None


def _clean(story: Story) -> str:
    right = mean(story.scored(last=story.plan.drift_from - 1), "accuracy_healed")
    so_far = f"It is right about {percent(right)} of them. " if right is not None else ""
    return (
        f"Transactions look as they did in training. {so_far}FIDI watches how far the average of V14 has moved, in "
        f"standard deviations; over {story.plan.threshold:g} would mean drift."
    )


def _drift(story: Story) -> str:
    now = mean(story.scored(story.plan.drift_from), "accuracy_shadow")
    fell = f" and it is right about only {percent(now)} of them" if now is not None else ""
    return (
        f"Since batch {story.plan.drift_from} the V14 of honest customers lies 2.2 lower, where fraud used to be. "
        f"Nobody told the model{fell}. FIDI averages ten batches, so it rises step by step."
    )


def _detect(story: Story) -> str:
    sign = story.first_sign()
    return (
        f"Noticed: {sign.message if sign else ''}. The monitor writes a heal request that names the rows by their "
        "offsets; the healer, another process, fetches exactly those. Scoring goes on meanwhile."
    )


def _heal(story: Story) -> str:
    return (
        "The healer fits a small adapter (8,321 numbers) around the frozen network and publishes it on a topic; the "
        f"scorer swaps it in between two batches. Now served: {story.active}."
    )


def _lift(story: Story) -> str:
    rows = story.served_by_adapter()
    served, frozen = mean(rows, "accuracy_healed"), mean(rows, "accuracy_shadow")
    return (
        "Every batch is also scored by the frozen network alone, the shadow: the proof that a repair helps, batch by "
        f"batch. Since the first adapter: right about {percent(served)} as served, {percent(frozen)} frozen. "
        "What stops helping is taken back."
    )


_EXPLAIN = {Phase.CLEAN: _clean, Phase.DRIFT: _drift, Phase.DETECT: _detect, Phase.HEAL: _heal, Phase.LIFT: _lift}
