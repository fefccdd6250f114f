"""Two processes of one slot: a second one started by mistake, and a zombie that wakes up beside its successor."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator

from selfheal.chaos.lives import READY_S, TERM_S, revived, runs
from selfheal.chaos.plan import Act
from selfheal.chaos.steps import Missed, NotBegun, Step, until, wait
from selfheal.chaos.victims import Victim
from selfheal.chaos.world import World
from selfheal.child import Child
from selfheal.restarts import FENCED


def zombie(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from runs(victim)
    victim.signal(signal.SIGSTOP)
    asleep = time.monotonic()
    try:
        twin = yield from _twin(world, victim)
        yield from wait(act.lasts_s - (time.monotonic() - asleep), f"{victim.name} sleeps beside its successor")
    finally:
        victim.signal(signal.SIGCONT)
    yield from _one_is_fenced(world, victim, twin, "a zombie that woke up")


def double(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from runs(victim)
    twin = yield from _twin(world, victim)
    yield from _one_is_fenced(world, victim, twin, "a second one")


def _twin(world: World, victim: Victim) -> Generator[str, None, Child]:
    """Raises NotBegun: the second process did not come up, as it may not while a broker is away."""
    twin = victim.child.twin(world.logs / f"{victim.name}-twin-{len(world.twins)}.log")
    world.twins.append(twin)
    twin.launch()
    try:
        yield from until(
            lambda: _ended(twin) or twin.pid in world.watch.started, READY_S, f"a second {victim.name} is ready"
        )
    except Missed as exc:
        twin.join(0.0)
        raise NotBegun(str(exc)) from exc
    return twin


def _ended(twin: Child) -> bool:
    twin.poll()
    return twin.exit_code is not None


def _one_is_fenced(world: World, victim: Victim, twin: Child, what: str) -> Step:
    """One of two of the same slot ends with the exit code that says so; the supervised one is left at work. Raises
    NotBegun where the second one ended for another reason: nobody restarts it."""
    older = victim.child.pid

    def told() -> bool:
        return _ended(twin) or victim.child.exit_code == FENCED

    try:
        yield from until(told, READY_S, f"{what} as {victim.name} is fenced")
    except Missed as exc:
        world.record.faults.append(str(exc))
    twin.terminate()
    yield from until(lambda: _ended(twin), TERM_S, f"a second {victim.name} ends")
    if victim.child.exit_code == FENCED:
        world.record.told.append(f"{what} as {victim.name}: the older process was fenced (exit code {FENCED})")
    elif twin.exit_code == FENCED:
        world.record.told.append(f"{what} as {victim.name}: the newer process was fenced (exit code {FENCED})")
    elif twin.exit_code:
        raise NotBegun(f"{what} as {victim.name} ended with exit code {twin.exit_code} before either was fenced")
    if victim.child.pid != older:
        yield from revived(victim)
