"""One chaos run: a pipeline of its own, the load, the schedule, quiet, the audit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import audit
from selfheal.broker import EmbeddedBroker
from selfheal.broker_config import free_ports
from selfheal.bundle_process import training
from selfheal.chaos.disk import Disk, disk
from selfheal.chaos.drifts import PRODUCER_ROWS
from selfheal.chaos.loading import Load
from selfheal.chaos.performing import Progress, look_after, perform, see_healed
from selfheal.chaos.plan import Act
from selfheal.chaos.report import MUST, Outcome, judged
from selfheal.chaos.victims import Victim
from selfheal.chaos.watch import Watch
from selfheal.chaos.world import World
from selfheal.local import LocalPipeline
from shared import bundle as bundles
from shared.errors import OperatorError, TimedOut
from shared.records import Policy

PREFIX = "chaos"
READY_S, QUIET_S = 120.0, 240.0  # a service that hangs ends itself after 130 s (selfheal/serve.py)
LAG_S = 5.0  # of one question how much is left
PARTITIONS = 4
# Heals and rollbacks every few seconds, where the policy is the published one: they are what is to be broken.
THRESHOLDS = {
    "conflict_min": 2.0,
    "fidi_threshold": 3.0,
    "rollback_f1_drop": 0.05,
    "rollback_acc_drop": 0.02,
    "health_window": 3,
}
PRODUCER = ("--rate", "4", "--label-delay", "4", "--audit-share", "0.1", "--flush-labels")
Say = Callable[[str], None]


def run(
    acts: list[Act], *, seed: int, brokers: int, scorers: int, rate: float, policy: Policy, left_out: list[str],
    folder: Path, say: Say,
) -> Outcome:  # fmt: skip
    """Break a pipeline in folder by this schedule and audit it. A disk-full in it asks for disk.unshared() before.
    left_out: what is not in it, and why. Blocks for as long as the schedule takes, and a minute or two. Leaves no
    process running, however it ends. Raises OperatorError: it cannot be started."""
    began = time.monotonic()

    def tell(text: str) -> None:
        say(f"{time.monotonic() - began:7.1f} s  {text}")

    with ExitStack() as stack:
        trained = stack.enter_context(training(folder / "bundle"))
        small = stack.enter_context(disk(folder / "kafka")) if any(a.kind == "disk-full" for a in acts) else None
        broker = stack.enter_context(_broker(folder / "kafka", brokers))
        trained()
        kafka = {"bootstrap.servers": broker.bootstrap}
        notices: list[str] = []
        pipeline = LocalPipeline(
            kafka, PREFIX, folder / "bundle", scorers=scorers, thresholds=THRESHOLDS, policy=policy, run_dir=folder,
            producer=[*PRODUCER, "--rows", str(PRODUCER_ROWS[policy]), "--seed", str(seed)], partitions=PARTITIONS,
            notice=notices.append,
        )  # fmt: skip
        stack.enter_context(pipeline)
        pipeline.wait_ready(READY_S)
        watch = stack.enter_context(Watch(kafka, PREFIX))
        watch.started |= {c.pid for c in pipeline.children if c.pid is not None}
        victims = [Victim(child, watch) for child in pipeline.children]
        made = bundles.load(folder / "bundle").hash
        world = World(kafka, PREFIX, policy, broker, small, victims, watch, folder / "logs", made, tell)
        stack.callback(_end_twins, world)
        load = Load(kafka, PREFIX, policy, seed, rate, folder)
        stack.enter_context(load)
        tell(f"{len(victims)} services and the load run, the monitor with policy {policy}")
        perform(world, acts, load, tell)
        see_healed(world, MUST, load, tell)
        tell("quiet: the load ends, what is left is worked off")
        _quiet(world, pipeline, load, tell)
        pipeline.stop()
        lost = load.lost()
        tell(f"audit{_written(small)}")
        found = audit.run(kafka, PREFIX, folder / "bundle", complete=True)
        return judged(
            acts, world, seed=seed, brokers=brokers, left_out=left_out, took_s=time.monotonic() - began, lost=lost,
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


def _quiet(world: World, pipeline: LocalPipeline, load: Load, tell: Say) -> None:
    """The load ends, then the producer, and everything that was sent is answered and judged. What is not after QUIET_S
    is a fault, and the audit will say more."""
    load.end()
    for victim in world.victims.values():
        if victim.child.service == "producer":
            victim.busy = True  # it ends for good
            victim.child.terminate()
            pipeline.wait_for("producer", READY_S)
    end, progress = time.monotonic() + QUIET_S, Progress(tell)
    still = 0
    while still < 2:  # what the monitor reads last may ask for one more heal
        lag: dict[str, dict[str, int]] | None
        try:
            lag = world.watch.lag(LAG_S)
        except (TimedOut, OperatorError):  # a broker has just come back
            lag = None
        still = still + 1 if lag is not None and not any(lag.values()) else 0
        progress(f"quiet: to be answered yet: {_left(lag)}")
        world.watch.check()
        look_after(world, tell)
        if time.monotonic() > end:
            lives = ", ".join(f"{v.name} {v.state()}" for v in world.victims.values())
            world.record.faults.append(f"{QUIET_S:.0f} s after the load there is still a lag: {_left(lag)}; {lives}")
            tell(world.record.faults[-1])
            return
        time.sleep(0.5)


def _left(lag: dict[str, dict[str, int]] | None) -> str:
    if lag is None:
        return "nobody says how much"
    left = [f"{name} {sum(n.values())} ({', '.join(f'{w} {k}' for w, k in n.items())})" for name, n in lag.items() if n]
    return ", ".join(left) or "nothing"


def _written(small: Disk | None) -> str:
    return "" if small is None else f"; the disk holds {small.used_bytes() / 2**20:.0f} MiB"


def _end_twins(world: World) -> None:
    for twin in world.twins:
        twin.join(0.0)
