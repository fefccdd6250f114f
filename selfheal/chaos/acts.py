"""What each kind of act does, step by step; many are under way at a time, one for each victim."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import suppress

from selfheal.chaos.plan import Act, Kind
from selfheal.chaos.victims import Victim
from selfheal.chaos.world import Missed, NotBegun, Step, World, aside, until, wait
from selfheal.child import Child
from selfheal.restarts import FENCED
from shared.errors import OperatorError, TimedOut
from shared.kafka import copies, grow_topic
from shared.telemetry import epoch_ms
from shared.topics import topic_name

READY_S = 60.0  # a start of torch on a machine that has other work, and a broker that is down meanwhile
HIT_S = 90.0  # an armed process reaches its point; some points need a heal to come along
END_S = 30.0
TERM_S = 60.0  # a commit that is under way has 30 s, and a broker may be away
FATAL = 3  # exit code of shared.errors.Fatal
BROKER_S = 120.0
IN_SYNC_S = 60.0
GROW_BY = 2


def kill(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from _runs(victim)
    before = victim.child.pid
    world.killed_now(victim, signal.SIGKILL)
    yield from _next_life(victim, before)


def crash(world: World, act: Act) -> Step:
    """Raises Missed where the armed process did not die there: it is tried again."""
    victim, began_ms = world.victim(act), epoch_ms()
    yield from _runs(victim)
    before = victim.child.pid
    victim.arm(f"{act.point}:{act.passing}")
    world.killed_now(victim, signal.SIGKILL, left_alone=False)
    try:
        yield from _next_life(victim, before)
    finally:
        victim.arm("")  # what has begun by now has it
    armed = victim.child.pid
    try:
        if act.service == "healer":  # it takes seconds to load PyTorch, and finds the request then
            yield from aside(world.ask_for_a_heal, BROKER_S, "a heal is asked for")
        yield from until(lambda: victim.child.pid != armed, HIT_S, f"{victim.name} reaches {act.point}")
    except Missed:
        world.killed_now(victim, signal.SIGKILL)
        raise
    at_ms = victim.crashed_at(act.point, began_ms)
    if at_ms is None:
        raise Missed(f"{victim.name} ended before it reached {act.point}")
    world.died(victim, at_ms, act.point)


def term(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from _runs(victim)
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
    yield from _revived(victim)


def pause(world: World, act: Act) -> Step:
    """It goes on, or ends and comes back: which of both is its own affair, the audit judges."""
    victim = world.victim(act)
    yield from _runs(victim)
    pid = victim.child.pid
    victim.signal(signal.SIGSTOP)
    yield from wait(act.lasts_s)
    victim.signal(signal.SIGCONT)
    yield from wait(END_S / 3)
    if victim.child.pid == pid:
        world.record.told.append(f"{victim.name} went on after {act.lasts_s:.0f} s asleep")
        return
    yield from _revived(victim)
    world.record.told.append(f"{victim.name} ended and came back after {act.lasts_s:.0f} s asleep")


def zombie(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from _runs(victim)
    victim.signal(signal.SIGSTOP)
    asleep = time.monotonic()
    try:
        twin = yield from _twin(world, victim)
        yield from wait(act.lasts_s - (time.monotonic() - asleep))
    finally:
        victim.signal(signal.SIGCONT)
    yield from _one_is_fenced(world, victim, twin, "a zombie that woke up")


def double(world: World, act: Act) -> Step:
    victim = world.victim(act)
    yield from _runs(victim)
    twin = yield from _twin(world, victim)
    yield from _one_is_fenced(world, victim, twin, "a second one")


def broker_restart(world: World, act: Act) -> Step:
    """All of it at once, in order."""
    world.broke("restarts")
    yield from aside(world.broker.stop, BROKER_S, "the broker stops")
    yield from wait(act.lasts_s)
    yield from aside(world.broker.start, BROKER_S, "the broker starts")


def broker_kill(world: World, act: Act) -> Step:
    world.broke("kills")
    os.kill(world.broker.nodes[0].jvm_pid(), signal.SIGKILL)
    yield from wait(act.lasts_s)
    yield from aside(world.broker.stop, BROKER_S, "what is left of the broker ends")
    yield from aside(world.broker.start, BROKER_S, "the broker starts")


def node_kill(world: World, act: Act) -> Step:
    world.broke("kills")
    os.kill(world.broker.nodes[act.node - 1].jvm_pid(), signal.SIGKILL)
    yield from wait(act.lasts_s)
    yield from aside(lambda: world.broker.relaunch(act.node), BROKER_S, f"node {act.node} starts")
    yield from until(Throttled(lambda: _in_sync(world)), IN_SYNC_S, f"node {act.node} has caught up")


def leader_kill(world: World, act: Act) -> Step:
    found: list[int] = []
    look = topic_name("predictions", world.prefix)
    yield from aside(lambda: found.append(copies(world.kafka, look)[0].leader), END_S, "somebody leads predictions")
    world.broke("kills of a leader")
    world.say(f"node {found[0]} leads {look}[0]")
    yield from node_kill(world, Act(act.at_s, "node-kill", lasts_s=act.lasts_s, node=found[0]))


def grow(world: World, act: Act) -> Step:
    topic = topic_name("transactions", world.prefix)
    yield from aside(
        lambda: grow_topic(world.kafka, topic, len(copies(world.kafka, topic)) + GROW_BY), BROKER_S, f"{topic} grows"
    )


ACTS: dict[Kind, Callable[[World, Act], Step]] = {
    "kill": kill, "crash": crash, "term": term, "pause": pause, "zombie": zombie, "double": double,
    "broker-restart": broker_restart, "broker-kill": broker_kill, "node-kill": node_kill, "leader-kill": leader_kill,
    "grow": grow,
}  # fmt: skip


class Throttled:
    """A question that costs something, asked once a second."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask, self._next = ask, 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + 1.0
        return self._ask()


def _in_sync(world: World) -> bool:
    """Whether every copy of what matters is up to date again: the next broker may go."""
    topics = (topic_name("transactions", world.prefix), topic_name("predictions", world.prefix))
    with suppress(OperatorError, TimedOut):
        found = [p for t in (*topics, "__consumer_offsets", "__transaction_state")
                 for p in copies(world.kafka, t, budget_s=2.0).values()]  # fmt: skip
        return all(len(p.in_sync) == len(p.replicas) for p in found)
    return False


def _runs(victim: Victim) -> Step:
    """Raises NotBegun: another act, on the broker maybe, has not let it come back so far."""
    try:
        yield from until(victim.ready, READY_S, f"{victim.name} runs")
    except Missed as exc:
        raise NotBegun(str(exc)) from exc


def _next_life(victim: Victim, before: int | None) -> Step:
    yield from until(lambda: victim.child.pid not in (None, before), READY_S, f"{victim.name} is started again")


def _revived(victim: Victim) -> Step:
    """By the supervisor by itself, or where it holds the end for good, because we tell it to."""
    yield from until(lambda: victim.child.over or victim.child.pid is not None, END_S, f"{victim.name} ends")
    if victim.child.over:
        victim.revive()


def _twin(world: World, victim: Victim) -> Generator[None, None, Child]:
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
    yield from until(lambda: _ended(twin), END_S, f"a second {victim.name} ends")
    if victim.child.exit_code == FENCED:
        world.record.told.append(f"{what} as {victim.name}: the older process was fenced (exit code {FENCED})")
    elif twin.exit_code == FENCED:
        world.record.told.append(f"{what} as {victim.name}: the newer process was fenced (exit code {FENCED})")
    elif twin.exit_code:
        raise NotBegun(f"{what} as {victim.name} ended with exit code {twin.exit_code} before either was fenced")
    if victim.child.pid != older:
        yield from _revived(victim)
