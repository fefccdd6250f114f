"""One chaos run: a pipeline of its own, the load, the schedule, quiet, the audit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import audit
from selfheal.broker import EmbeddedBroker
from selfheal.broker_config import free_ports
from selfheal.bundle_process import training
from selfheal.chaos.acts import ACTS
from selfheal.chaos.loading import Load
from selfheal.chaos.plan import Act
from selfheal.chaos.report import Outcome, judged
from selfheal.chaos.victims import Victim
from selfheal.chaos.watch import Watch
from selfheal.chaos.world import Missed, NotBegun, Step, World
from selfheal.local import LocalPipeline
from selfheal.restarts import FENCED
from shared import bundle as bundles
from shared.errors import OperatorError, TimedOut

PREFIX = "chaos"
TICK_S = 0.02
READY_S, LATE_S, QUIET_S = 120.0, 420.0, 180.0
TRIES = 3
PARTITIONS = 4
# Heals and rollbacks every few seconds: they are what is to be broken.
THRESHOLDS = {
    "conflict_min": 2.0,
    "fidi_threshold": 3.0,
    "rollback_f1_drop": 0.05,
    "rollback_acc_drop": 0.02,
    "health_window": 3,
}
PRODUCER = ("--rate", "4", "--rows", "30", "--label-delay", "4", "--audit-share", "0.1", "--flush-labels")
Say = Callable[[str], None]


def run(acts: list[Act], *, seed: int, brokers: int, scorers: int, rate: float, folder: Path, say: Say) -> Outcome:
    """Break a pipeline in folder by this schedule and audit it. Blocks for as long as the schedule takes, and a minute
    or two. Leaves no process running, however it ends. Raises OperatorError: it cannot be started."""
    began = time.monotonic()

    def tell(text: str) -> None:
        say(f"{time.monotonic() - began:7.1f} s  {text}")

    with ExitStack() as stack:
        trained = stack.enter_context(training(folder / "bundle"))
        broker = stack.enter_context(_broker(folder / "kafka", brokers))
        trained()
        kafka = {"bootstrap.servers": broker.bootstrap}
        notices: list[str] = []
        pipeline = LocalPipeline(
            kafka, PREFIX, folder / "bundle", scorers=scorers, thresholds=THRESHOLDS, run_dir=folder,
            producer=[*PRODUCER, "--seed", str(seed)], partitions=PARTITIONS, notice=notices.append,
        )  # fmt: skip
        stack.enter_context(pipeline)
        pipeline.wait_ready(READY_S)
        watch = stack.enter_context(Watch(kafka, PREFIX))
        watch.started |= {c.pid for c in pipeline.children if c.pid is not None}
        victims = [Victim(child, watch) for child in pipeline.children]
        made = bundles.load(folder / "bundle").hash
        world = World(kafka, PREFIX, broker, victims, watch, folder / "logs", made, tell)
        stack.callback(_end_twins, world)
        load = Load(kafka, PREFIX, seed, rate, folder)
        stack.enter_context(load)
        tell(f"{len(victims)} services and the load run")
        _perform(world, acts, load, tell)
        tell("quiet: the load ends, what is left is worked off")
        _quiet(world, pipeline, load)
        pipeline.stop()
        lost = load.lost()
        tell("audit")
        found = audit.run(kafka, PREFIX, folder / "bundle", complete=True)
        return judged(
            acts, world, seed=seed, brokers=brokers, took_s=time.monotonic() - began, lost=lost,
            acknowledged=len(load.acknowledged()), notices=notices, audit=found.as_dict(), audit_lines=found.lines(),
        )  # fmt: skip


@contextmanager
def _broker(folder: Path, nodes: int) -> Iterator[EmbeddedBroker]:
    """On ports that it keeps over restarts: clients know no others."""
    for _ in range(20):
        first = free_ports(1, None)[0].client
        try:
            free_ports(nodes, first)
            break
        except OperatorError:
            continue
    else:
        raise OperatorError(f"no {nodes} free ports beside each other")
    with EmbeddedBroker(folder, port=first, nodes=nodes) as broker:
        yield broker


def _perform(world: World, acts: list[Act], load: Load, tell: Say) -> None:
    """Begin each act in its time, one at a time for each victim, and see all of them through."""
    began = time.monotonic()
    due: list[Act] = list(acts)
    running: dict[Act, Step] = {}
    tries: Counter[str] = Counter()
    last = (acts[-1].at_s if acts else 0.0) + LATE_S
    while due or running:
        now = time.monotonic() - began
        if now > last:
            left = ", ".join(str(a) for a in (*running, *due))
            world.record.faults.append(f"not done {LATE_S:.0f} s after the end: {left}")
            return
        for act in [a for a in due if a.at_s <= now and _free(world, a)]:
            if _free(world, act):
                due.remove(act)
                _occupy(world, act, True)
                tell(str(act))
                running[act] = ACTS[act.kind](world, act)
        for act, steps in list(running.items()):
            try:
                next(steps)
                continue
            except StopIteration:
                pass
            except Missed as exc:
                tell(f"{act}: {exc}")
                what = act.point or str(act)
                tries[what] += 1
                if (act.kind == "crash" or isinstance(exc, NotBegun)) and tries[what] < TRIES:
                    world.record.missed.append(str(exc))
                    due.append(replace(act, at_s=now, passing=1))
                else:
                    world.record.faults.append(f"{act}: {exc}")
            del running[act]
            _occupy(world, act, False)
        _look_after(world, tell)
        world.watch.check()
        load.check()
        time.sleep(TICK_S)


def _free(world: World, act: Act) -> bool:
    return not (world.victim(act).busy if act.service else world.broker_busy)


def _occupy(world: World, act: Act, busy: bool) -> None:
    if act.service:
        world.victim(act).busy = busy
    else:
        world.broker_busy = busy


def _look_after(world: World, tell: Say) -> None:
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


def _quiet(world: World, pipeline: LocalPipeline, load: Load) -> None:
    """The load ends, then the producer, and everything that was sent is answered and judged. Raises TimedOut."""
    load.end()
    for child in pipeline.children:
        if child.service == "producer":
            child.terminate()
            pipeline.wait_for("producer", READY_S)
    end = time.monotonic() + QUIET_S
    still = 0
    while still < 2:  # what the monitor reads last may ask for one more heal
        lag: dict[str, int] | None
        try:
            lag = world.watch.lag()
        except (TimedOut, OperatorError):  # a broker has just come back
            lag = None
        still = still + 1 if lag is not None and not any(lag.values()) else 0
        world.watch.check()
        if time.monotonic() > end:
            raise TimedOut(f"{QUIET_S:.0f} s after the load there is still a lag: {lag}")
        time.sleep(0.5)


def _end_twins(world: World) -> None:
    for twin in world.twins:
        twin.join(0.0)
