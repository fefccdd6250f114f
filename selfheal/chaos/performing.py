"""Carries out a schedule: every act in its time, one at a time for each victim, and says what it waits for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from selfheal.chaos.acts import ACTS
from selfheal.chaos.loading import Load
from selfheal.chaos.plan import Act
from selfheal.chaos.steps import Missed, NotBegun, Step
from selfheal.chaos.world import Record, World
from selfheal.restarts import FENCED
from shared.telemetry import epoch_ms

TICK_S = 0.02
SOON_S, LATE_S = 15.0, 420.0
HEAL_S = 120.0  # three drifts
PROGRESS_S = 15.0  # without a line, before there is one on what is waited for
TRIES = 5  # an armed process may also end because the broker is away
Say = Callable[[str], None]


class Progress:
    """Says something where nothing else was said for PROGRESS_S."""

    def __init__(self, say: Say) -> None:
        self._say, self._said = say, time.monotonic()

    def heard(self) -> None:
        """Something else was said."""
        self._said = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._said >= PROGRESS_S:
            self.heard()
            self._say(text)


def perform(world: World, acts: list[Act], load: Load, tell: Say) -> None:
    """Begin each act in its time, one at a time for each victim, and see through what was begun. What its victims had
    no time for until SOON_S after the last was due is left undone, but for what every run must have; for that there
    is LATE_S. Raises Fatal: the load ended."""
    began, progress = time.monotonic(), Progress(tell)
    due: list[Act] = list(acts)
    running: dict[Act, Step] = {}
    waits: dict[Act, str] = {}
    tries: Counter[str] = Counter()
    last = acts[-1].at_s if acts else 0.0
    while due or running:
        now = time.monotonic() - began
        if now > last + SOON_S:
            kept = needed(due, list(running), world.record)
            world.record.undone += [str(a) for a in due if a not in kept]
            due = kept
        if now > last + LATE_S:
            left = ", ".join(str(a) for a in (*running, *due))
            world.record.faults.append(f"not done {LATE_S:.0f} s after the end: {left}")
            return
        for act in [a for a in due if a.at_s <= now]:
            if _free(world, act):
                due.remove(act)
                _occupy(world, act, True)
                tell(str(act))
                progress.heard()
                running[act] = ACTS[act.kind](world, act)
        for act, steps in list(running.items()):
            try:
                waits[act] = next(steps)
                continue
            except StopIteration:
                world.record.done.add(act.kind)
            except Missed as exc:
                tell(f"{act}: {exc}")
                progress.heard()
                what = act.point or str(act)
                tries[what] += 1
                if (act.kind == "crash" or isinstance(exc, NotBegun)) and tries[what] < TRIES:
                    world.record.missed.append(str(exc))
                    due.append(replace(act, at_s=now, passing=1))
                else:
                    world.record.faults.append(f"{act}: {exc}")
            del running[act]
            _occupy(world, act, False)
        late = sum(a.at_s <= now for a in due)
        progress(f"waiting: {'; '.join(waits[a] for a in running) or 'the next act is due'}; {late} acts behind that")
        look_after(world, tell)
        world.watch.check()
        load.check()
        time.sleep(TICK_S)


def needed(due: Sequence[Act], running: Sequence[Act], record: Record) -> list[Act]:
    """Of the acts that are due, those without which a crash point would not be reached, or a kind of act not be done.
    Pure."""
    points = {d.point for d in record.deaths if d.point} | {a.point for a in running}
    kinds = record.done | {a.kind for a in running}
    kept = []
    for act in due:
        if (act.point not in points) if act.point else (act.kind not in kinds):
            kept.append(act)
            points.add(act.point)
            kinds.add(act.kind)
    return kept


def see_healed(world: World, kinds: Sequence[str], load: Load, tell: Say) -> None:
    """Until there was an event of each of these kinds, or HEAL_S have passed: a run in which nothing was decided says
    nothing of decisions, and whoever judges it will say so. Raises Fatal: the load ended."""
    end, progress = time.monotonic() + HEAL_S, Progress(tell)
    while (missing := [k for k in kinds if not world.watch.kinds[k]]) and time.monotonic() < end:
        progress(f"waiting: {', '.join(missing)}")
        look_after(world, tell)
        world.watch.check()
        load.check()
        time.sleep(TICK_S)


def _free(world: World, act: Act) -> bool:
    return not (world.victim(act).busy if act.service else world.broker_since is not None)


def _occupy(world: World, act: Act, busy: bool) -> None:
    if act.service:
        world.victim(act).busy = busy
    elif busy:
        world.broker_since = epoch_ms()
    elif world.broker_since is not None:
        world.record.away.append((world.broker_since, epoch_ms()))
        world.broker_since = None


def look_after(world: World, tell: Say) -> None:
    """A service that gave up with nobody's help would need a person: that is a fault, and the run goes on."""
    for victim in world.victims.values():
        if victim.child.over and not victim.busy and victim.child.exit_code == FENCED and world.twins:
            victim.revive()  # by a second one that we started, and that ended before this one knew
        elif victim.child.over and not victim.busy:
            last = victim.child.log_tail().rpartition("\n")[2]
            text = f"{victim.name} gave up, exit code {victim.child.exit_code}: {last}"
            tell(text)
            world.record.faults.append(text)
            victim.revive()
