"""Produced -> visible to a read_committed reader at 50 messages/s, and the same while the healer fits without pause."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import confluent_kafka as ck
import numpy as np
import orjson

from bench import world
from shared import bundle as bundles

RATE = 50.0
WARM_S = 2.0  # clients that have just connected; not counted


def run(
    bootstrap: str, prefix: str, bundle: Path, work: Path, *, seconds: float, rounds: int,
    say: Callable[[str], None] = print,
) -> dict[str, float]:  # fmt: skip
    """p50_ms and p99_ms quiet, p99_healing_ms, their ratio (medians over rounds), heals done in the measured time."""
    env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap}
    score = world.selfheal("score", "--slot", "bench0", "--prefix", prefix, "--bundle", str(bundle))
    heal = world.selfheal("heal", "--slot", "bench0", "--prefix", prefix, "--bundle", str(bundle))
    quiet: list[list[float]] = []
    healing: list[list[float]] = []
    heals = 0
    with world.process(score, work / "latency-scorer.log", **env), world.process(heal, work / "healer.log", **env):
        _probe(bootstrap, prefix, 15.0)  # warm: joins, first transactions, and the broker compiles what is hot
        request = _request(bootstrap, prefix, bundle)
        for turn in range(rounds):
            quiet.append(_probe(bootstrap, prefix, seconds))
            with _heals(bootstrap, prefix, request) as count:
                healing.append(_probe(bootstrap, prefix, seconds))
            heals += count[0]
            a, b = np.percentile(quiet[-1], [50, 99]), np.percentile(healing[-1], [50, 99])
            say(f"  round {turn + 1}: quiet p50 {a[0]:.1f} p99 {a[1]:.1f} ms; healing p50 {b[0]:.1f} p99 {b[1]:.1f} ms")
    p99 = statistics.median(float(np.percentile(r, 99)) for r in quiet)
    p99_healing = statistics.median(float(np.percentile(r, 99)) for r in healing)
    return {
        "p50_ms": statistics.median(float(np.percentile(r, 50)) for r in quiet),
        "p99_ms": p99,
        "p50_healing_ms": statistics.median(float(np.percentile(r, 50)) for r in healing),
        "p99_healing_ms": p99_healing,
        "p99_ratio": p99_healing / p99,
        "heals": heals,
    }


def _probe(bootstrap: str, prefix: str, seconds: float) -> list[float]:
    """Milliseconds from produce to visible, of every message sent at a steady rate for so long."""
    reader = ck.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "bench-latency", "isolation.level": "read_committed",
        "enable.auto.commit": False, "fetch.wait.max.ms": 10,
    })  # fmt: skip
    topic = f"{prefix}.predictions"
    reader.assign([ck.TopicPartition(topic, p, o) for p, o in world.ends(bootstrap, topic).items()])
    run, sent, took = f"{time.monotonic_ns()}", {}, {}
    over = threading.Event()

    def read() -> None:
        deadline = time.monotonic() + WARM_S + seconds + 30
        while time.monotonic() < deadline and not (over.is_set() and len(took) == len(sent)):
            m = reader.poll(0.05)
            if m is not None and m.error() is None and m.key().decode() in sent:
                took[m.key().decode()] = time.perf_counter()

    thread = threading.Thread(target=read)
    thread.start()
    producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    rng, start = np.random.default_rng(2), time.perf_counter()
    for i in range(int((WARM_S + seconds) * RATE)):
        body = orjson.loads(world.message(rng, i)) | {"batch_id": f"{run}-{i}"}
        value = orjson.dumps(body)
        time.sleep(max(0.0, start + i / RATE - time.perf_counter()))
        sent[f"{run}-{i}"] = time.perf_counter()
        producer.produce(f"{prefix}.transactions", value, f"{run}-{i}")
        producer.poll(0)
    producer.flush(30)
    over.set()
    thread.join(seconds + 60)
    reader.close()
    if len(took) != len(sent):
        raise RuntimeError(f"{len(sent) - len(took)} of {len(sent)} messages never became visible predictions")
    return [(took[k] - sent[k]) * 1_000 for k in list(sent)[int(WARM_S * RATE) :]]


def _request(bootstrap: str, prefix: str, bundle: Path) -> dict[str, object]:
    """A heal request over one stored batch of 100 rows with its labels."""
    producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    body = orjson.loads(world.message(np.random.default_rng(3), 9_999_999))
    placed: dict[str, tuple[int, int]] = {}
    labels = {
        "batch_id": body["batch_id"], "transaction_ids": body["transaction_ids"],
        "labels": [int(row[7] < -4.0) for row in body["features"]], "kind": "delayed",
    }  # fmt: skip
    for name, value in (("transactions", body), ("labels", labels)):
        producer.produce(
            f"{prefix}.{name}", orjson.dumps(value), body["batch_id"],
            on_delivery=lambda e, m, name=name: placed.update({name: (m.partition(), m.offset())}),
        )  # fmt: skip
    producer.flush(30)
    ranges = {
        name: [{"topic": f"{prefix}.{name}", "partition": p, "start": o, "end": o + 1}]
        for name, (p, o) in placed.items()
    }
    return {
        "policy": "reference", "reason": "benchmark", "base_version": "v1", "bundle": bundles.load(bundle).hash,
        "batch_id": body["batch_id"], "at": body["created_at"], **ranges,
    }  # fmt: skip


class _heals:
    """Asks for the next heal as soon as the one before is finished; yields the number done."""

    def __init__(self, bootstrap: str, prefix: str, request: dict[str, object]) -> None:
        self._bootstrap, self._prefix, self._request = bootstrap, prefix, request
        self._count, self._over, self._failure = [0], threading.Event(), ""
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        producer = ck.Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 0})
        events, topic = f"{self._prefix}.events", f"{self._prefix}.heal-requests"
        reader = ck.Consumer({
            "bootstrap.servers": self._bootstrap, "group.id": "bench-heals", "isolation.level": "read_committed",
        })  # fmt: skip
        reader.assign([ck.TopicPartition(events, p, o) for p, o in world.ends(self._bootstrap, events).items()])
        while not self._over.is_set():
            name = f"bench-{time.monotonic_ns()}"
            producer.produce(topic, orjson.dumps({**self._request, "request_id": name}), name)
            producer.flush(10)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not self._over.is_set():
                m = reader.poll(0.1)
                if m is None or m.error() is not None:
                    continue
                event = orjson.loads(m.value())
                if event.get("request_id") == name:
                    if event["kind"] != "heal-finished":
                        self._failure = f"the heal did not finish: {event}"
                        return
                    self._count[0] += 1
                    break
        reader.close()

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._count

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        if self._failure or not self._count[0]:
            raise RuntimeError(self._failure or "no heal finished while latency was measured")
