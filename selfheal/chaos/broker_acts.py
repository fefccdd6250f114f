"""Brokers: restarted, killed, out of space, and given more partitions to look after."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from selfheal.chaos.plan import Act
from selfheal.chaos.steps import Missed, Step, Throttled, aside, until, wait
from selfheal.chaos.world import World
from shared.errors import OperatorError, TimedOut
from shared.kafka import copies, grow_topic
from shared.topics import topic_name

BROKER_S = 120.0
IN_SYNC_S = 60.0
FIND_S = 30.0
FULL_S = 15.0  # a load of 16 messages a second finds out within one
GROW_BY = 2


def broker_restart(world: World, act: Act) -> Step:
    """All of it at once, in order."""
    world.broke("restarts")
    yield from aside(world.broker.stop, BROKER_S, "the broker stops")
    yield from wait(act.lasts_s, "the broker is away")
    yield from aside(world.broker.start, BROKER_S, "the broker starts")


def broker_kill(world: World, act: Act) -> Step:
    world.broke("kills")
    os.kill(world.broker.nodes[0].jvm_pid(), signal.SIGKILL)
    yield from wait(act.lasts_s, "the broker is away")
    yield from _started_anew(world)


def node_kill(world: World, act: Act) -> Step:
    world.broke("kills")
    os.kill(world.broker.nodes[act.node - 1].jvm_pid(), signal.SIGKILL)
    yield from wait(act.lasts_s, f"node {act.node} is away")
    yield from aside(lambda: world.broker.relaunch(act.node), BROKER_S, f"node {act.node} starts")
    yield from until(Throttled(lambda: _in_sync(world)), IN_SYNC_S, f"node {act.node} has caught up")


def leader_kill(world: World, act: Act) -> Step:
    found: list[int] = []
    look = topic_name("predictions", world.prefix)
    yield from aside(lambda: found.append(copies(world.kafka, look)[0].leader), FIND_S, "somebody leads predictions")
    world.broke("kills of a leader")
    world.say(f"node {found[0]} leads {look}[0]")
    yield from node_kill(world, Act(act.at_s, "node-kill", lasts_s=act.lasts_s, node=found[0]))


def disk_full(world: World, act: Act) -> Step:
    """Not a byte more can be written until the broker has ended by itself, or for FULL_S; then there is space again,
    and a start. Where the brokers are several they share the disk: all of them end."""
    if world.disk is None:
        raise OperatorError("a disk-full in the schedule, and no disk of our own")
    world.broke("disks full")
    began = time.monotonic()
    world.disk.fill()
    try:
        yield from until(lambda: not any(n.alive() for n in world.broker.nodes), FULL_S, "the broker ends by itself")
        world.record.told.append(f"the broker ended by itself {time.monotonic() - began:.1f} s after its disk was full")
    except Missed:
        world.record.told.append(f"the broker went on for {FULL_S:.0f} s on a full disk, then was ended")
        yield from aside(world.broker.stop, BROKER_S, "what is left of the broker ends")
    finally:
        world.disk.free()
    yield from wait(act.lasts_s, "the broker is away")
    yield from _started_anew(world)


def grow(world: World, act: Act) -> Step:
    topic = topic_name("transactions", world.prefix)
    yield from aside(
        lambda: grow_topic(world.kafka, topic, len(copies(world.kafka, topic)) + GROW_BY), BROKER_S, f"{topic} grows"
    )


def _started_anew(world: World) -> Step:
    yield from aside(world.broker.stop, BROKER_S, "what is left of the broker ends")
    yield from aside(world.broker.start, BROKER_S, "the broker starts")


def _in_sync(world: World) -> bool:
    """Whether every copy of what matters is up to date again: the next broker may go."""
    topics = (topic_name("transactions", world.prefix), topic_name("predictions", world.prefix))
    with suppress(OperatorError, TimedOut):
        found = [p for t in (*topics, "__consumer_offsets", "__transaction_state")
                 for p in copies(world.kafka, t, budget_s=2.0).values()]  # fmt: skip
        return all(len(p.in_sync) == len(p.replicas) for p in found)
    return False
