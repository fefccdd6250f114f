"""A stranger's client, which knows the contract and nothing else; the scorer is killed under it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from selfheal.local import LocalPipeline

BATCHES, ROWS, KILLS = 2_000, 20, 3
FEATURES = 10


def good(number: int, rng: random.Random) -> dict[str, Any]:
    return {
        "batch_id": f"b{number}",
        "transaction_ids": [f"b{number}-{i}" for i in range(ROWS)],
        "features": [[rng.gauss(0, 1) for _ in range(FEATURES)] for _ in range(ROWS)],
        "created_at": "2026-05-01T12:00:00Z",
    }


def bad(number: int, rng: random.Random) -> tuple[bytes, str]:
    """A message that cannot be scored, and the field its dead letter must blame ('' for none)."""
    batch = good(number, rng)
    match number // 20 % 10:
        case 0:
            return b"\x00\xffnot json{", ""
        case 1:
            batch["features"] = "none today"
            field = "features"
        case 2:
            del batch["transaction_ids"]
            field = "transaction_ids"
        case 3:
            batch["features"][3].append(1.0)
            field = "features[3]"
        case 4:
            batch["features"][2][5] = float("nan")
            field = "features[2][5]"
        case 5:
            batch["features"][0][0] = float("-inf")
            field = "features[0][0]"
        case 6:
            batch["transaction_ids"] = [f"x{i}" for i in range(1_001)]
            batch["features"] = [[0.0] * FEATURES] * 1_001
            field = "transaction_ids"
        case 7:
            batch["transaction_ids"][7] = batch["transaction_ids"][3]
            field = "transaction_ids"
        case 8:
            batch["transaction_ids"], batch["features"] = [], []
            field = "transaction_ids"
        case _:
            return rng.randbytes(1024 * 1024), ""
    return json.dumps(batch).encode(), field


def read_committed(kafka: dict[str, str], topic: str) -> list[Any]:
    consumer = Consumer(
        {
            **kafka,
            "group.id": f"stranger-{uuid.uuid4()}",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    parts = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in parts])
    left, found, deadline = set(parts), [], time.monotonic() + 60
    while left and time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error() is None:
            found.append(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            left.discard(message.partition())
    consumer.close()
    assert not left, f"{topic} could not be read to its end"
    return found


@pytest.mark.broker
@pytest.mark.timeout(240)
def test_every_input_has_one_prediction_or_one_dead_letter(
    kafka: dict[str, str], tmp_path: Path, bundle_dir: Path
) -> None:
    prefix, rng = f"stranger-{uuid.uuid4().hex[:8]}", random.Random(7)
    topic, sent = f"{prefix}.transactions", {}
    blamed: dict[tuple[int, int], str] = {}

    with LocalPipeline(kafka, prefix, bundle_dir, without=("producer", "healer"), run_dir=tmp_path) as pipeline:
        pipeline.wait_ready(60)
        scorer = next(c for c in pipeline.children if c.service == "scorer")
        producer = Producer({**kafka, "linger.ms": 5, "message.max.bytes": 2_000_000})

        def delivered(number: int, field: str | None) -> Any:
            def note(error: Any, message: Any) -> None:
                assert error is None
                sent[message.partition(), message.offset()] = number
                if field is not None:
                    blamed[message.partition(), message.offset()] = field

            return note

        killed = 0
        for number in range(BATCHES):
            value, field = bad(number, rng) if number % 20 == 0 else (json.dumps(good(number, rng)).encode(), None)
            producer.produce(topic, value, f"b{number}", on_delivery=delivered(number, field))
            producer.poll(0)
            if number in (500, 1_000, 1_500):
                producer.flush(30)
                deadline = time.monotonic() + 60
                while (pid := scorer.pid) is None:
                    assert time.monotonic() < deadline, "the killed scorer did not come back"
                    time.sleep(0.05)
                os.kill(pid, signal.SIGKILL)
                killed += 1
        assert producer.flush(60) == 0
        assert killed == KILLS

        def answers() -> tuple[list[Any], list[Any]]:
            return read_committed(kafka, f"{prefix}.predictions"), read_committed(kafka, f"{prefix}.dead-letters")

        deadline = time.monotonic() + 120
        predictions, letters = answers()
        while len(predictions) + len(letters) < BATCHES and time.monotonic() < deadline:
            time.sleep(1)
            predictions, letters = answers()

    scored = Counter()
    for message in predictions:
        body = json.loads(message.value())
        where = body["source"]["partition"], body["source"]["offset"]
        scored[where] += 1
        assert body["source"]["topic"] == topic
        assert body["batch_id"] == f"b{sent[where]}"
        assert body["transaction_ids"] == [f"{body['batch_id']}-{i}" for i in range(ROWS)]
        assert len(body["probability"]) == len(body["shadow_probability"]) == ROWS
        assert all(0 <= p <= 1 for p in body["probability"])
        assert body["adapter_version"] == "v1"
    dead = Counter()
    for message in letters:
        headers = dict(message.headers())
        where = int(headers["source.partition"]), int(headers["source.offset"])
        dead[where] += 1
        assert headers["reason"]
        assert (headers["service"], headers["source.topic"]) == (b"scorer", topic.encode())
        assert headers.get("field", b"").decode() == blamed[where], headers
    assert scored + dead == Counter(dict.fromkeys(sent, 1)), "each input exactly once"
    assert dead.keys() == blamed.keys()
