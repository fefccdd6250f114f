"""What a pipeline's topics tell, as three chapters, one a drift. Pure: records go in, words and numbers come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import NamedTuple

from selfheal.acts import Act, Plan, Truth
from selfheal.tail_lines import REFUSALS
from shared.bundle import Costs
from shared.records import FIRST_VERSION, Event, Metrics

H = 5.0  # about where the alarm rings, until an alarm says where exactly
# Said by another event as well, or only the machinery at work.
SILENT = (
    "service-started", "service-stopped", "heal-requested", "drift-detected", "fenced", "thinning-changed",
    "record-refused",
)  # fmt: skip


class Outcome(StrEnum):
    """How a drift went, as the topics tell it; not as the plan wants it."""

    AHEAD = "to come"
    UNSEEN = "not noticed"
    SEEN = "noticed"
    REFUSED = "refused"
    HEALED = "healed"
    TAKEN_BACK = "taken back"


class Chapter(NamedTuple):
    """What was said and measured about one drift, from its first batch to the next drift. alarm: of the monitor.
    verdict: of the healer; the diagnosis that led to a repair, else the newest refusal. activated: the first repair.
    ended: it was taken out of force. learned: an adapter that labels trained was put in force. drifted: labelled rows
    of the drift; repaired: those of them that an adapter scored."""

    act: Act
    outcome: Outcome
    alarm: Event | None
    verdict: Event | None
    activated: Event | None
    ended: Event | None
    learned: Event | None
    drifted: list[Metrics]
    repaired: list[Metrics]


class Pair(NamedTuple):
    """Accuracy and cost per transaction, means over batches."""

    accuracy: float
    cost: float


@dataclass
class Story:
    """rows by batch_idx, as last written; events as they came; told: those of them that are worth a line."""

    plan: Plan
    truth: Mapping[int, Truth]
    costs: Costs = field(default_factory=Costs)
    rows: dict[int, Metrics] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    _number: dict[str, int] = field(default_factory=dict)

    def add_row(self, row: Metrics) -> bool:
        """Take a metrics row in; whether all is known about its batch now (for the first time)."""
        before = self.rows.get(row.batch_idx)
        self.rows[row.batch_idx] = row
        self._number[row.batch_id] = row.batch_idx
        return done(row) and not (before is not None and done(before))

    def add_event(self, event: Event) -> bool:
        """Take an event in; whether it is worth a line."""
        worth = event.kind not in SILENT and event.facts.get("purpose") != "learn" and self._new(event)
        self.events.append(event)
        if worth:
            self.told.append(event)
        return worth

    def _new(self, event: Event) -> bool:
        """Nothing is said twice."""
        before = next((e for e in reversed(self.told) if e.kind == event.kind), None)
        match event.kind:
            case "diagnosed":
                known = before is not None and _alike(before, event, "verdict", "reason")
                return event.facts.get("n_blocks") != 0 and not known
            case "heal-finished":
                chapter = self.chapter
                return chapter is None or chapter.outcome != Outcome.TAKEN_BACK
            case "adapter-rejected":
                return before is None or not _alike(before, event, "verdict")
            case "drift-ended":
                return "version" in event.facts  # else it is FIDI's own, which averages ten batches
        return True

    @property
    def newest(self) -> Metrics | None:
        return self.rows[max(self.rows)] if self.rows else None

    @property
    def done(self) -> int:
        """Batches about which nothing is still to come."""
        return sum(done(row) for row in self.rows.values())

    @property
    def active(self) -> str:
        """The version that is served from the newest batch on."""
        return FIRST_VERSION if self.newest is None else self.newest.next_version

    @property
    def threshold(self) -> float:
        """z at which the alarm rings."""
        said = (e.facts.get("threshold") for e in self.events if e.kind == "alarm")
        return next((h for h in said if isinstance(h, int | float)), H)

    def batch_of(self, event: Event) -> int | None:
        """The number of the batch that an event is about; the healer names it by its id."""
        number = event.facts.get("batch_idx")
        if isinstance(number, int):
            return number
        return self._number.get(str(event.facts.get("batch_id")))

    def scored(self, first: int = 1, last: int | None = None) -> list[Metrics]:
        """Rows of the batches first..last whose labels are known, in order."""
        end = self.plan.batches if last is None else last
        return [r for i, r in sorted(self.rows.items()) if first <= i <= end and r.accuracy_healed is not None]

    def best(self, rows: Sequence[Metrics]) -> Pair:
        """Of Bayes' rule, told the drift, over the batches of the rows."""
        return Pair(*map(fmean, zip(*(self.truth[r.batch_idx].best(self.costs) for r in rows), strict=True)))

    def nobody(self, rows: Sequence[Metrics]) -> Pair:
        """Of flagging nobody, over the batches of the rows."""
        return Pair(*map(fmean, zip(*(self.truth[r.batch_idx].nobody(self.costs) for r in rows), strict=True)))

    @property
    def chapters(self) -> list[Chapter]:
        return [self._chapter(i) for i in range(len(self.plan.acts))]

    @property
    def chapter(self) -> Chapter | None:
        """The one that is told now, None before the first."""
        newest = self.newest
        now = None if newest is None else self.plan.act(newest.batch_idx)
        return None if now is None else self._chapter(now)

    def _chapter(self, index: int) -> Chapter:
        act, until = self.plan.acts[index], self.plan.until(index)
        said = list(self._between(act.first, until))
        alarm = _first(said, lambda e: e.kind == "alarm")
        repair = _first(said, lambda e: e.kind == "heal-finished" and e.facts.get("purpose") == "diagnose")
        refusals = [e for e in said if e.kind == "diagnosed" and e.facts.get("verdict") in REFUSALS]
        put = [e for e in said if e.kind == "adapter-activated"]
        activated = _first(put, lambda e: e.facts.get("reason") != "learned")
        learned = _first(put, lambda e: e.facts.get("reason") == "learned")
        ended = None
        if activated is not None:
            after = said[said.index(activated) :]
            ended = _first(
                after, lambda e: e.kind == "rolled-back" or (e.kind == "drift-ended" and "version" in e.facts)
            )
        drifted = self.scored(act.first, act.last)
        outcome = self._outcome(act, alarm, activated, ended, bool(refusals))
        return Chapter(
            act, outcome, alarm, repair or (refusals[-1] if refusals else None), activated, ended, learned, drifted,
            [r for r in drifted if r.adapter_version != FIRST_VERSION],
        )  # fmt: skip

    def _between(self, first: int, last: int) -> Iterator[Event]:
        for event in self.events:
            number = self.batch_of(event)
            if number is not None and first <= number <= last:
                yield event

    def _outcome(
        self, act: Act, alarm: Event | None, activated: Event | None, ended: Event | None, refused: bool
    ) -> Outcome:
        if activated is not None:
            return Outcome.TAKEN_BACK if ended is not None and ended.kind == "rolled-back" else Outcome.HEALED
        if refused:
            return Outcome.REFUSED
        if alarm is not None:
            return Outcome.SEEN
        return Outcome.AHEAD if self.newest is None or self.newest.batch_idx < act.first else Outcome.UNSEEN


def done(row: Metrics) -> bool:
    """Nothing about the batch is still to come: its decisions are made and its labels are in."""
    return row.settled and row.accuracy_healed is not None


def measured(rows: Sequence[Metrics], whose: str) -> Pair | None:
    """Means over labelled rows. whose: healed (as served) or shadow (frozen)."""
    accuracy, cost = mean(rows, f"accuracy_{whose}"), mean(rows, f"cost_{whose}")
    return None if accuracy is None or cost is None else Pair(accuracy, cost)


def mean(rows: Sequence[Metrics], column: str) -> float | None:
    """Of a column over the rows that have it."""
    values = [v for r in rows if (v := getattr(r, column)) is not None]
    return fmean(values) if values else None


def _alike(a: Event, b: Event, *names: str) -> bool:
    return all(a.facts.get(name) == b.facts.get(name) for name in names)


def _first(events: Sequence[Event], wanted: Callable[[Event], bool]) -> Event | None:
    return next((e for e in events if wanted(e)), None)
