"""A real pipeline audited from its topics: green; then red for what a stranger adds to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import audit
from selfheal.local import LocalPipeline

LOCKSTEP = ["--lockstep", "--batches", "12", "--rows", "60", "--scenario", "reference", "--seed", "1"]


def plant(kafka: dict[str, str], message: Any, **changes: Any) -> None:
    """The same record once more, with some of it changed."""
    fields = {"value": message.value(), "key": message.key(), "headers": message.headers(), **changes}
    producer = Producer(kafka)
    producer.produce(message.topic(), partition=message.partition(), **fields)
    assert producer.flush(10) == 0


def command(kafka: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka["bootstrap.servers"]}
    return subprocess.run(
        [sys.executable, "-P", "-m", "selfheal", "audit", *words],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.broker
@pytest.mark.timeout(180)
def test_a_real_run_is_green_and_what_a_stranger_adds_turns_it_red(
    kafka: dict[str, str], prefix: str, bundle_dir: Path, tmp_path: Path, wait_for: Callable[..., None],
    read_topic: Callable[..., list[Any]],
) -> None:  # fmt: skip
    with LocalPipeline(kafka, prefix, bundle_dir, policy="reference", producer=LOCKSTEP, run_dir=tmp_path) as pipeline:
        pipeline.wait_ready(60)
        bad = Producer(kafka)
        bad.produce(f"{prefix}.transactions", b'{"batch_id": "bad"}', "bad")
        assert bad.flush(10) == 0
        assert pipeline.wait_for("producer", 60) == 0
        wait_for(lambda: read_topic("dead-letters"), "the bad message has its dead letter")

    report = audit.run(kafka, prefix, bundle_dir, complete=True)
    assert report.ok, report.lines()
    assert report.findings["answers"].checked == 13
    assert report.findings["adapters"].checked >= 2
    assert all(f.checked for f in report.findings.values())
    assert "rows beyond 1e-6, by no more than float32 rounds them" not in report.counts

    done = command(kafka, "--prefix", prefix, "--bundle", str(bundle_dir), "--json")
    assert (done.returncode, json.loads(done.stdout)["broken"]) == (0, []), done.stderr

    # A valid batch of a stranger, answered by a prediction that is another's but for its source: ids and rows differ.
    predictions, inputs = read_topic("predictions"), read_topic("transactions")
    changed = json.loads(predictions[3].value())
    plant(kafka, next(m for m in inputs if m.key() == predictions[3].key()))
    copy = max(m.offset() for m in read_topic("transactions") if m.partition() == changed["source"]["partition"])
    changed["source"]["offset"] = copy
    changed["probability"][7] += 1e-5 if changed["probability"][7] < 0.5 else -1e-5
    plant(kafka, predictions[3], value=json.dumps(changed).encode())
    report = audit.run(kafka, prefix, bundle_dir)
    assert "probabilities" in report.broken(), report.lines()
    assert "row 7" in report.findings["probabilities"].first[0][1]
    assert "answers" not in report.broken()

    plant(kafka, predictions[5])
    report = audit.run(kafka, prefix, bundle_dir)
    assert "answers" in report.broken(), report.lines()
    assert "2 predictions" in report.findings["answers"].first[0][1]

    letter, valid = read_topic("dead-letters")[0], next(m for m in inputs if m.key() == predictions[0].key())
    source = {"topic": valid.topic(), "partition": valid.partition(), "offset": valid.offset()}
    headers = [(f"source.{k}", str(v).encode()) for k, v in source.items()]
    headers += [("reason", b"because"), ("service", b"scorer")]
    key = f"{valid.topic()}/{valid.partition()}/{valid.offset()}"
    plant(kafka, letter, value=valid.value(), key=key, headers=headers)
    report = audit.run(kafka, prefix, bundle_dir)
    assert "contents" in report.broken(), report.lines()
    assert "is a valid batch" in report.findings["contents"].first[0][1]

    done = command(kafka, "--prefix", prefix, "--bundle", str(bundle_dir), "--text")
    assert done.returncode == 1
    assert "FAIL answers" in done.stdout
    done = command(kafka, "--prefix", "nobody", "--bundle", str(bundle_dir))
    assert (done.returncode, done.stdout) == (2, "")
    assert "no topic nobody.transactions" in done.stderr
