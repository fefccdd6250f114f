"""One service: killed, killed at a crash point, asked to end, put to sleep."""

from __future__ import annotations

import signal
from contextlib import suppress

from selfheal.chaos.lives import END_S, TERM_S, next_life, revived, runs
from selfheal.chaos.plan import Act
from selfheal.chaos.steps import Missed, Step, aside, until, wait
from selfheal.chaos.victims import Victim
from selfheal.chaos.world import World
from selfheal.restarts import FENCED
from shared.telemetry import epoch_ms

HIT_S = 90.0  # an armed process reaches its point; some points need a heal to come along
ASK_S = 60.0
BREATH_S = 30.0
SWAP, SWAPS, SWAP_S = "scorer.before-swap", 4, 20.0
ARM_S = 0.1  # the supervisor looks as often
FATAL = 3  # exit code of shared.errors.Fatal


def kill(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from runs(victim)
    before = victim.child.pid
    world.killed_now(victim, signal.SIGKILL)
    yield from next_life(victim, before)


def crash(world: World, act: Act) -> Step:
    """Raises Missed where the armed process did not die there: it is tried again."""
    victim, began_ms = world.victim(act), epoch_ms()
    if act.service == "healer":
        yield from until(world.person.may_ask, HIT_S, "enough is scored to heal from")
    if act.point == SWAP:
        yield from _an_adapter(world)
    yield from _armed(world, victim, f"{act.point}:{act.passing}")
    armed = victim.child.pid
    try:
        if act.service == "healer":  # it takes seconds to load PyTorch, and finds the request then
            yield from aside(lambda: world.person.ask_for_a_heal(act.point), ASK_S, "a heal is asked for")
        if act.point == SWAP:
            yield from _swapping(world, victim, armed)
        yield from until(lambda: victim.child.pid != armed, HIT_S, f"{victim.name} reaches {act.point}")
    except Missed:
        world.killed_now(victim, signal.SIGKILL)
        yield from next_life(victim, armed)
        raise
    at_ms = victim.crashed_at(act.point, began_ms)
    if at_ms is None:
        raise Missed(f"{victim.name} ended before it reached {act.point}")
    world.died(victim, at_ms, act.point)
    if act.service == "healer":
        yield from _answers_again(world)


def _answers_again(world: World) -> Step:
    """A healer that dies time and again never heals, and nothing that follows from a heal is ever broken: the next one
    has its time to answer what this one died over, where the machine gives it as much."""
    before = world.watch.outcomes()
    with suppress(Missed):
        yield from until(lambda: world.watch.outcomes() > before, BREATH_S, "a healer answers again")


def _armed(world: World, victim: Victim, spec: str) -> Step:
    """Until it runs with this crash point armed: killed for that, unless it is down anyway. Not so with scorers, whose
    way back from the last kill is measured."""
    if victim.starts_in_s() > ARM_S and victim.child.service != "scorer":
        before = None
        victim.arm(spec)
        world.not_left_alone(victim)
    else:
        yield from runs(victim)
        before = victim.child.pid
        victim.arm(spec)
        world.killed_now(victim, signal.SIGKILL, left_alone=False)
    try:
        yield from next_life(victim, before)
    finally:
        victim.arm("")  # what has begun by now has it


def _an_adapter(world: World) -> Step:
    """There is one to swap. Raises Missed."""
    if not world.watch.kinds["heal-finished"]:
        yield from until(world.person.may_ask, HIT_S, "enough is scored to heal from")
        yield from aside(lambda: world.person.ask_for_a_heal(SWAP), ASK_S, "a heal is asked for")
        yield from until(lambda: world.watch.kinds["heal-finished"], HIT_S, "there is an adapter to swap")


def _swapping(world: World, victim: Victim, armed: int | None) -> Step:
    """A person orders one version, then another, until it has died over the swap or the next order takes too long."""
    for _ in range(SWAPS):
        with suppress(Missed):  # Kafka may be away for a while
            yield from aside(world.person.pin_another, ASK_S, "a version is ordered")
            yield from until(lambda: victim.child.pid != armed, SWAP_S, f"{victim.name} swaps")
            break
    yield from aside(world.person.unpin, ASK_S, "the order is taken back")


def term(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from runs(victim)
    victim.signal(signal.SIGTERM)
    ended: list[int] = []

    def over() -> bool:
        ended.extend([] if victim.child.exit_code is None else [victim.child.exit_code])
        return bool(ended)

    yield from until(over, TERM_S, f"{victim.name} ends when asked to")
    if ended[0] == FENCED and world.twins:
        world.record.told.append(f"{victim.name} heard at its end that a second one had fenced it")
    elif ended[0] not in (0, FATAL):
        world.record.faults.append(f"{victim.name} ended with exit code {ended[0]} after SIGTERM")
    elif ended[0] == FATAL:
        world.record.told.append(f"{victim.name} could not say goodbye after SIGTERM: exit code {FATAL}")
    yield from revived(victim)


def pause(world: World, act: Act) -> Step:
    """It goes on, or ends and comes back: which of both is its own affair, the audit judges."""
    victim = world.victim(act)
    yield from runs(victim)
    pid = victim.child.pid
    victim.signal(signal.SIGSTOP)
    yield from wait(act.lasts_s, f"{victim.name} sleeps")
    victim.signal(signal.SIGCONT)
    yield from wait(END_S / 3, f"{victim.name} goes on or ends")
    if victim.child.pid == pid:
        world.record.told.append(f"{victim.name} went on after {act.lasts_s:.0f} s asleep")
        return
    yield from revived(victim)
    world.record.told.append(f"{victim.name} ended and came back after {act.lasts_s:.0f} s asleep")
