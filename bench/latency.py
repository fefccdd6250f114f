"""Produced -> visible to a read_committed reader at 50 messages/s: quiet, with heals at a natural pace, with a core as
busy that heals nothing, and with the healer busy without a pause. They alternate in blocks of some seconds, so that a
slow minute of the machine hits all alike."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import confluent_kafka as ck
import numpy as np
import orjson

from bench import heals, world
from bench.busy import Busy
from bench.heals import AT_A_PACE, Asking, Heal, Mode

RATE = 50.0
WARM_S = 15.0  # joins, first transactions, and the broker compiles what is hot; not counted
# Of a paced or a busy block few messages count.
BLOCK_S: dict[Mode, float] = {"quiet": 5.0, "paced": 10.0, "busy": 10.0, "unpaced": 5.0}
SETTLE_S = 0.5  # at the beginning of each block, not counted
AFTER_S = 0.1  # messages that come so soon after a heal count as messages during it
MODES: tuple[Mode, ...] = ("quiet", "paced", "busy", "unpaced")


class Block(NamedTuple):
    """perf_counter seconds; what was sent between them belongs to it."""

    mode: Mode
    start: float
    end: float


def run(
    bootstrap: str, prefix: str, bundle: Path, work: Path, *, seconds: float, rounds: int,
    say: Callable[[str], None] = print,
) -> dict[str, float]:  # fmt: skip
    """Of each mode p50_ms, p99_ms, messages (as counted) and heals; paced counts only messages in flight while a heal
    was under way or AFTER_S after it, and busy those about a busy core. seconds: of quiet time a round."""
    env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap}
    score = world.selfheal("score", "--slot", "bench0", "--prefix", prefix, "--bundle", str(bundle))
    heal = world.selfheal("heal", "--slot", "bench0", "--prefix", prefix, "--bundle", str(bundle))
    cycles = max(1, round(rounds * seconds / BLOCK_S["quiet"]))
    with world.process(score, work / "latency-scorer.log", **env), world.process(heal, work / "healer.log", **env):
        requests: dict[Mode, heals.Request] = {
            "paced": heals.diagnosis(bootstrap, prefix, bundle), "unpaced": heals.reference(bootstrap, prefix, bundle),
        }  # fmt: skip
        with (
            Busy() as busy, Asking(bootstrap, prefix, requests, busy) as asking, Probe(bootstrap, prefix) as probe,
        ):  # fmt: skip
            blocks = [_block(asking, mode) for mode in (*MODES, *_order(cycles))][len(MODES) :]
    found: dict[str, float] = {}
    for mode in MODES:
        took = [ms for b in blocks if b.mode == mode for ms in counted(b, probe.seen, asking.done)]
        done = [h for h in asking.done if any(b.mode == mode and b.start <= h.asked < b.end for b in blocks)]
        if mode in ("paced", "unpaced") and not any(h.adapters for h in done):
            raise RuntimeError(f"no heal published an adapter while latency was measured ({mode}: {len(done)} heals)")
        p50, p99 = (float(p) for p in np.percentile(took, [50, 99]))
        found |= {f"{mode}_p50_ms": p50, f"{mode}_p99_ms": p99, f"{mode}_messages": len(took)}
        found |= {f"{mode}_heals": len(done), f"{mode}_seconds": sum(b.end - b.start for b in blocks if b.mode == mode)}
        say(f"  {mode:8} p50 {p50:.1f} p99 {p99:.1f} ms ({len(took)} messages, {len(done)} heals)")
    return found


def _order(cycles: int) -> list[Mode]:
    """Each mode once a cycle, each cycle begins with another."""
    return [MODES[(cycle + k) % len(MODES)] for cycle in range(cycles) for k in range(len(MODES))]


def _block(asking: Asking, mode: Mode) -> Block:
    asking.mode = mode
    start = time.perf_counter()
    time.sleep(BLOCK_S[mode])
    return Block(mode, start, time.perf_counter())


def counted(block: Block, seen: Sequence[tuple[float, float]], done: Sequence[Heal]) -> list[float]:
    """Milliseconds of the messages that count for a block. seen: (sent, visible), by the time sent."""
    first, end = (bisect.bisect_left(seen, (at, 0.0)) for at in (block.start + SETTLE_S, block.end))
    near = [h for h in done if h.done > block.start and h.asked < block.end]
    return [
        (visible - sent) * 1_000
        for sent, visible in seen[first:end]
        if block.mode not in AT_A_PACE or any(h.asked < visible and sent < h.done + AFTER_S for h in near)
    ]


class Probe:
    """Sends at RATE until left, and reads the predictions; seen: (sent, visible) of every message, once left."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap, self._prefix = bootstrap, prefix
        self._sent: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._read, self._send)]
        self.seen: list[tuple[float, float]] = []

    def __enter__(self) -> Probe:
        for thread in self._threads:
            thread.start()
        time.sleep(WARM_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        if lost := len(self._sent) - len(self._took):
            raise RuntimeError(f"{lost} of {len(self._sent)} messages never became visible predictions")
        self.seen = sorted((sent, self._took[name]) for name, sent in self._sent.items())

    def _send(self) -> None:
        producer = ck.Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 0})
        rng, begun, i, run = np.random.default_rng(2), time.perf_counter(), 0, time.monotonic_ns()
        while not self._over.wait(max(0.0, begun + i / RATE - time.perf_counter())):
            name = f"{run}-{i}"
            value = orjson.dumps(orjson.loads(world.message(rng, i)) | {"batch_id": name})
            self._sent[name] = time.perf_counter()
            producer.produce(f"{self._prefix}.transactions", value, name)
            producer.poll(0)
            i += 1
        producer.flush(30)

    def _read(self) -> None:
        reader = ck.Consumer({
            "bootstrap.servers": self._bootstrap, "group.id": "bench-latency", "isolation.level": "read_committed",
            "enable.auto.commit": False, "fetch.wait.max.ms": 10,
        })  # fmt: skip
        topic = f"{self._prefix}.predictions"
        reader.assign([ck.TopicPartition(topic, p, o) for p, o in world.ends(self._bootstrap, topic).items()])
        until = float("inf")
        while time.perf_counter() < until and not (self._over.is_set() and len(self._took) == len(self._sent)):
            if self._over.is_set() and until == float("inf"):
                until = time.perf_counter() + 30
            m = reader.poll(0.05)
            if m is not None and m.error() is None and (name := (m.key() or b"").decode()) in self._sent:
                self._took[name] = time.perf_counter()
        reader.close()
