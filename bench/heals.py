"""Heals asked of a running healer, one after the other or at a pace, each with the time from asking to outcome."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import confluent_kafka as ck
import numpy as np
import orjson

from bench import world
from bench.busy import Busy
from producer.drift import generator_at, rows_at
from producer.generator import REFERENCE
from producer.scenarios import SCENARIOS
from shared import bundle as bundles

PACE_S = 0.5
BATCHES, BATCH_ROWS, BLOCKS = 20, 100, 10  # of a diagnosis: as many rows as the guard ever shows
SCENARIO, DRIFTED = "S4", 40  # the dearest of bench.heal; a batch well after its drift began
OUTCOMES = ("heal-finished", "diagnosed", "heal-failed")
_OUTCOME_S = 30.0

# busy: no heal, but a process that uses a core for as long, at the pace of paced.
Mode = Literal["quiet", "paced", "busy", "unpaced"]
AT_A_PACE: tuple[Mode, ...] = ("paced", "busy")
BUSY_S = 0.11  # about as long as the heal of paced, from asking to outcome
Request = dict[str, Any]


class Heal(NamedTuple):
    """perf_counter seconds. adapters: whether the outcome published any."""

    asked: float
    done: float
    adapters: bool


def diagnosis(bootstrap: str, prefix: str, bundle: Path) -> Request:
    """As the guarded monitor asks: 2,000 drifted rows in 10 blocks, without labels."""
    scene, rng = SCENARIOS[SCENARIO], np.random.default_rng(5)
    law = generator_at(scene.steps, scene.generator, DRIFTED)
    bodies = []
    for k in range(BATCHES):
        rows, y = law.rows(rng, BATCH_ROWS)
        bodies.append(_batch(f"bench-diagnosis-{k}", rows_at(scene.steps, law.features, DRIFTED, rows, y)))
    return {
        "policy": "guarded", "purpose": "diagnose", "blocks": [BATCHES // BLOCKS] * BLOCKS,
        "parameters": {"first_batch_idx": 1}, "transactions": _stored(bootstrap, f"{prefix}.transactions", bodies),
        **_of(bundle, bodies[-1]),
    }  # fmt: skip


def reference(bootstrap: str, prefix: str, bundle: Path) -> Request:
    """As published: one batch of 100 rows with its labels."""
    rows, y = REFERENCE.rows(np.random.default_rng(3), BATCH_ROWS)
    body = _batch("bench-reference", rows)
    labels = {
        "batch_id": body["batch_id"], "transaction_ids": body["transaction_ids"], "labels": y.astype(int).tolist(),
        "kind": "delayed",
    }  # fmt: skip
    return {
        "policy": "reference", "transactions": _stored(bootstrap, f"{prefix}.transactions", [body]),
        "labels": _stored(bootstrap, f"{prefix}.labels", [labels]), **_of(bundle, body),
    }  # fmt: skip


def _batch(batch_id: str, rows: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    return {
        "batch_id": batch_id, "transaction_ids": [f"{batch_id}-{i}" for i in range(len(rows))],
        "features": rows.round(6).tolist(), "created_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def _of(bundle: Path, newest: Mapping[str, Any]) -> Request:
    return {
        "reason": "benchmark", "base_version": "v1", "bundle": bundles.load(bundle).hash,
        "batch_id": newest["batch_id"], "at": newest["created_at"],
    }  # fmt: skip


def _stored(bootstrap: str, topic: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The offset range of each, once it is on the topic."""
    producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "enable.idempotence": True})
    placed: list[ck.Message] = []
    for body in bodies:
        value, key = orjson.dumps(body), body["batch_id"]
        producer.produce(topic, value, key, on_delivery=lambda error, m: None if error else placed.append(m))
    if producer.flush(30) or len(placed) != len(bodies):
        raise RuntimeError(f"the broker did not take the rows on {topic} within 30 s")
    where = {(m.key() or b"").decode(): (m.partition(), m.offset() or 0) for m in placed}
    return [
        {"topic": topic, "partition": p, "start": o, "end": o + 1} for p, o in (where[b["batch_id"]] for b in bodies)
    ]


class Asking:
    """A thread that asks as `mode` says, which may change at any time; done: every heal so far. A heal that fails is
    an error on the way out."""

    def __init__(self, bootstrap: str, prefix: str, requests: Mapping[Mode, Request], busy: Busy) -> None:
        self._bootstrap, self._prefix, self._requests, self._busy = bootstrap, prefix, requests, busy
        self.mode: Mode = "quiet"
        self.done: list[Heal] = []
        self._over, self._failure = threading.Event(), ""
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_OUTCOME_S + 10)
        if self._failure:
            raise RuntimeError(self._failure)

    def _work(self) -> None:
        producer = ck.Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 0})
        topic = f"{self._prefix}.events"
        reader = ck.Consumer({
            "bootstrap.servers": self._bootstrap, "group.id": "bench-heals", "isolation.level": "read_committed",
            "enable.auto.commit": False, "fetch.wait.max.ms": 10,
        })  # fmt: skip
        reader.assign([ck.TopicPartition(topic, p, o) for p, o in world.ends(self._bootstrap, topic).items()])
        for k in itertools.count():
            while self.mode == "quiet" and not self._over.wait(0.02):
                pass
            began, mode = time.perf_counter(), self.mode
            if self._over.is_set() or self._failure:
                break
            if mode == "busy":
                self._busy.burn(BUSY_S)
                self.done.append(Heal(began, time.perf_counter(), adapters=False))
            elif mode != "quiet":
                self._heal(producer, reader, f"bench-{mode}-{k}", self._requests[mode])
            if mode in AT_A_PACE:
                self._over.wait(max(0.0, began + PACE_S - time.perf_counter()))
        reader.close()

    def _heal(self, producer: ck.Producer, reader: ck.Consumer, name: str, request: Request) -> None:
        asked = time.perf_counter()
        producer.produce(f"{self._prefix}.heal-requests", orjson.dumps({**request, "request_id": name}), name)
        producer.flush(10)
        while time.perf_counter() < asked + _OUTCOME_S:
            m = reader.poll(0.1)
            if m is None or m.error() is not None:
                continue
            event = orjson.loads(m.value() or b"{}")
            if event.get("request_id") == name and event["kind"] in OUTCOMES:
                if event["kind"] == "heal-failed":
                    self._failure = f"a heal failed: {event}"
                self.done.append(Heal(asked, time.perf_counter(), event["kind"] == "heal-finished"))
                return
        self._failure = f"no outcome of {name} within {_OUTCOME_S:g} s"
