"""What a chaos run came to: numbers, the audit, and whether all of it is as it must be."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfheal.chaos.plan import INSIDE, Act
from selfheal.chaos.world import Death, Record, World
from shared.crash import CRASH_POINTS

# What happens while things are broken; without the first two a run proves less than it says.
MUST = ("heal-requested", "adapter-activated")
DECISIONS = frozenset({*MUST, "alarm", "diagnosed", "heal-finished", "heal-failed", "adapter-rejected", "drift-ended",
                       "rolled-back"})  # fmt: skip


class Recovery(msgspec.Struct, frozen=True):
    """Seconds from the kill of a scorer until every partition, its own among them, had a new committed prediction.
    Counted are kills whose successor was left alone. unseen: there was none until the load ended. alone_s: of those
    during which no broker was away and no scorer was killed."""

    counted: int
    took_s: list[float]
    median_s: float | None
    longest_s: float | None
    unseen: int
    alone_s: list[float]


class Killed(msgspec.Struct, frozen=True):
    """One kill. at_ms: epoch. point: of a crash. counted: of a scorer whose successor was left alone; recovered_s: of
    those, as in Recovery."""

    victim: str
    at_ms: int
    point: str
    counted: bool
    recovered_s: float | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """policy: of the monitor. left_out: kinds of faults that this machine does not allow, and why. undone: acts for
    which there was no time. points: kills at each crash point. inside: kills while the broker held a transaction open,
    for certain. decided: events by kind. lost: acknowledged messages that are not on the topic. unanswered, doubled:
    inputs without an answer, with several. away: (begin, end), epoch ms, of what was done to brokers. faults: what
    should not have happened; green: nothing did."""

    seed: int
    brokers: int
    policy: str
    left_out: list[str]
    took_s: float
    schedule: list[str]
    kills: int
    killed: list[Killed]
    away: list[tuple[int, int]]
    kills_by_service: dict[str, int]
    inside: int
    points: dict[str, int]
    broken: dict[str, int]
    decided: dict[str, int]
    recovery: Recovery
    undone: list[str]
    told: list[str]
    missed: list[str]
    acknowledged: int
    lost: list[str]
    unanswered: int
    doubled: int
    faults: list[str]
    notices: list[str]
    audit: dict[str, Any]
    audit_lines: list[str]
    green: bool


def killed(deaths: Sequence[Death], recovered_s: Callable[[int], float | None]) -> list[Killed]:
    """Each with its recovery, now that it has been seen. recovered_s: as Watch.recovered_s."""
    counted = [d.victim.startswith("scorer") and d.left_alone for d in deaths]
    return [
        Killed(d.victim, d.at_ms, d.point, counts, recovered_s(d.at_ms) if counts else None)
        for d, counts in zip(deaths, counted, strict=True)
    ]


def recovery(kills: Sequence[Killed], away: Sequence[tuple[int, int]]) -> Recovery:
    """Of the scorers that were killed. away: (begin, end), epoch ms, of what was done to brokers."""
    seen = [(k.at_ms, k.recovered_s) for k in kills if k.recovered_s is not None]
    took = sorted(round(s, 2) for _, s in seen)
    more = [k.at_ms for k in kills if k.victim.startswith("scorer")]
    alone = sorted(
        round(s, 2) for at, s in seen
        if not any(begin <= at + s * 1000 and at <= end for begin, end in away)
        and not any(at < other <= at + s * 1000 for other in more)
    )  # fmt: skip
    return Recovery(
        counted=len(took),
        took_s=took,
        median_s=median(took),
        longest_s=took[-1] if took else None,
        unseen=sum(k.counted for k in kills) - len(took),
        alone_s=alone,
    )


def median(seconds: Sequence[float]) -> float | None:
    """None of none."""
    return round(statistics.median(seconds), 2) if seconds else None


def judged(
    acts: Sequence[Act], world: World, *, seed: int, brokers: int, left_out: list[str], took_s: float,
    lost: list[str], acknowledged: int, notices: list[str], audit: Mapping[str, Any], audit_lines: list[str],
) -> Outcome:  # fmt: skip
    """Everything together. audit: the auditor's report as it gives it, `ok` among it."""
    record: Record = world.record
    kills = killed(record.deaths, world.watch.recovered_s)
    points = Counter(d.point for d in record.deaths if d.point)
    faults = list(record.faults)
    faults += [f"crash point {point} was never reached" for point in CRASH_POINTS if not points[point]]
    decided = {kind: n for kind, n in sorted(world.watch.kinds.items()) if kind in DECISIONS}
    faults += [f"nothing was broken while it healed: no event {kind}" for kind in MUST if not decided.get(kind)]
    if lost:
        faults.append(f"{len(lost)} messages that the broker acknowledged are gone, the first {lost[0]}")
    if not audit["ok"]:
        faults.append(f"the audit is red: {', '.join(audit['broken'])}")
    return Outcome(
        seed=seed, brokers=brokers, policy=world.policy, left_out=left_out,
        took_s=round(took_s, 1), schedule=[f"{a.at_s:6.1f} s  {a}" for a in acts],
        kills=len(kills), killed=kills, away=record.away,
        kills_by_service=dict(Counter(k.victim for k in kills)),
        inside=sum(points[p] for p in INSIDE), points={p: points[p] for p in CRASH_POINTS},
        broken=record.broken, decided=decided, recovery=recovery(kills, record.away),
        undone=record.undone, told=record.told, missed=record.missed,
        acknowledged=acknowledged, lost=lost[:10], unanswered=audit["inputs"]["lost"],
        doubled=audit["inputs"]["doubled"], faults=faults, notices=notices, audit=dict(audit),
        audit_lines=audit_lines, green=not faults,
    )  # fmt: skip


def lines(outcome: Outcome) -> list[str]:
    """For a terminal."""
    r = outcome.recovery
    killed = ", ".join(f"{name} {n}" for name, n in sorted(outcome.kills_by_service.items()))
    out = [
        f"kills        {outcome.kills} ({killed}), {outcome.inside} of them inside open transactions",
        "crash points "
        + f"{sum(n > 0 for n in outcome.points.values())} of {len(outcome.points)} reached: "
        + ", ".join(f"{name} {n}" for name, n in outcome.points.items()),
        "brokers      " + (", ".join(f"{k} {n}" for k, n in sorted(outcome.broken.items())) or "left alone"),
        "decisions    " + ", ".join(f"{kind} {n}" for kind, n in outcome.decided.items()),
        f"recovery     of {r.counted} killed scorers: median {r.median_s} s, longest {r.longest_s} s (kill to the next "
        f"committed prediction of all partitions); not seen for {r.unseen}",
        f"             of the {len(r.alone_s)} with no other scorer killed and no broker away: {median(r.alone_s)} s",
        f"messages     {outcome.acknowledged} acknowledged to the load, {len(outcome.lost)} of them gone; of all "
        f"inputs {outcome.unanswered} lost, {outcome.doubled} answered more than once",
    ]
    out += [f"left out     {text}" for text in outcome.left_out]
    if outcome.undone:
        out.append(f"left undone  {len(outcome.undone)} acts for which their victims had no time: the machine is slow")
    out += [f"also         {text}" for text in outcome.told]
    out += [f"tried again  {text}" for text in outcome.missed]
    out += ["audit", *(f"  {line}" for line in outcome.audit_lines)]
    out += [f"FAULT        {text}" for text in outcome.faults]
    return [*out, f"seed {outcome.seed}: {'green' if outcome.green else 'RED'} after {outcome.took_s:.0f} s"]


def write(outcome: Outcome, folder: Path) -> None:
    """chaos.json in the folder, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaos.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1))
