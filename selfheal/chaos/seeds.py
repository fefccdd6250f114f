"""Several chaos runs, one after the other, each in a process of its own; and what they come to together."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from selfheal.chaos.report import Outcome, Recovery, median
from shared.crash import CRASH_POINTS
from shared.errors import OperatorError

END_S = 30.0  # for a run that is to end before its time to take down what it started


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """green: of how many runs. faults: by run. recovery_s, alone_s: as of one run (report.Recovery)."""

    runs: int
    green: int
    kills: int
    inside: int
    points: dict[str, int]
    lost: int
    doubled: int
    recovery_s: list[float]
    median_s: float | None
    alone_s: list[float]
    alone_median_s: float | None
    faults: list[str]


def parse(text: str) -> list[int]:
    """`1,2,3` or `1-5`. Raises OperatorError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise OperatorError(f"--seeds {text}: {part!r} is no seed; write 1,2,3 or 1-5")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    if not found or len(set(found)) < len(found):
        raise OperatorError(f"--seeds {text}: each seed once, and one at least")
    return found


def run(seeds: Sequence[int], options: Sequence[str], out: Path | None, say: Callable[[str], None]) -> list[Outcome]:
    """A run for each seed, with these options of `selfheal chaos`; what it says goes to stderr. out: gets a folder for
    each. Says a line for each when it is through. A run that ends without a record counts as one with a fault."""
    found = []
    for seed in seeds:
        more = [] if out is None else ["--out", str(out / f"seed-{seed}")]
        found.append(_run(seed, [*options, *more]))
        say(line(found[-1]))
    return found


def _run(seed: int, options: Sequence[str]) -> Outcome:
    command = [sys.executable, "-P", "-m", "selfheal", "chaos", "--seed", str(seed), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        said, _ = process.communicate()
    except BaseException:  # Ctrl-C reaches it too; SIGTERM reaches us alone
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    try:
        return msgspec.json.decode(said, type=Outcome)
    except msgspec.DecodeError:
        return without_record(seed, f"ended with exit code {process.returncode} before its audit")


def without_record(seed: int, fault: str) -> Outcome:
    """Of a run of which nothing but its end is known."""
    return Outcome(
        seed=seed, brokers=0, policy="", left_out=[], took_s=0.0, schedule=[], kills=0, killed=[], away=[],
        kills_by_service={}, inside=0,
        points=dict.fromkeys(CRASH_POINTS, 0), broken={}, decided={}, recovery=Recovery(0, [], None, None, 0, []),
        undone=[], told=[], missed=[], acknowledged=0, lost=[], unanswered=0, doubled=0, faults=[fault],
        notices=[], audit={}, audit_lines=[], green=False,
    )  # fmt: skip


def total(outcomes: Sequence[Outcome]) -> Total:
    """All of them together."""
    points: Counter[str] = Counter()
    for each in outcomes:
        points.update(each.points)
    took = sorted(s for each in outcomes for s in each.recovery.took_s)
    alone = sorted(s for each in outcomes for s in each.recovery.alone_s)
    return Total(
        runs=len(outcomes), green=sum(o.green for o in outcomes), kills=sum(o.kills for o in outcomes),
        inside=sum(o.inside for o in outcomes), points={p: points[p] for p in CRASH_POINTS},
        lost=sum(len(o.lost) + o.unanswered for o in outcomes), doubled=sum(o.doubled for o in outcomes),
        recovery_s=took, median_s=median(took), alone_s=alone, alone_median_s=median(alone),
        faults=[f"seed {o.seed}: {text}" for o in outcomes for text in o.faults],
    )  # fmt: skip


def line(outcome: Outcome) -> str:
    """One run."""
    r = outcome.recovery
    hit = sum(n > 0 for n in outcome.points.values())
    return (
        f"seed {outcome.seed}: {'green' if outcome.green else 'RED'}, {outcome.kills} kills, {outcome.inside} inside "
        f"open transactions, {hit} of {len(outcome.points)} points, {len(outcome.lost) + outcome.unanswered} lost, "
        f"{outcome.doubled} doubled, {outcome.acknowledged} messages, recovery {r.median_s} s (median of {r.counted}), "
        f"{outcome.took_s:.0f} s"
    )


def lines(t: Total) -> list[str]:
    """What is left to say when the last run is through."""
    seldom = min(t.points, key=lambda p: t.points[p])
    return [
        *(f"FAULT  {text}" for text in t.faults),
        f"total: {t.green} of {t.runs} green, {t.kills} kills, {t.inside} inside open transactions, each point hit "
        f"{t.points[seldom]} times or more ({seldom}), {t.lost} lost, {t.doubled} doubled, recovery {t.median_s} s "
        f"(median of {len(t.recovery_s)} scorers; {t.alone_median_s} s of the {len(t.alone_s)} with nothing "
        f"else away)",
    ]
