"""`selfheal produce` and `selfheal replay` as a person types them, on a real pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producer.answers import await_answers
from selfheal.local import LocalPipeline
from shared.kafka import Out, Writer
from shared.topics import topic_name


def selfheal(kafka: dict[str, str], folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka["bootstrap.servers"]}
    command = [sys.executable, "-P", "-m", "selfheal", *args]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.broker
def test_a_replay_as_recorded_gives_the_same_bits(
    kafka: dict[str, str], prefix: str, bundle_dir: Path, tmp_path: Path
) -> None:
    without = ["producer", "healer", "monitor"]
    with LocalPipeline(kafka, prefix, bundle_dir, without=without, run_dir=tmp_path) as pipeline:
        made = selfheal(
            kafka, tmp_path, "produce", "--prefix", prefix, "--batches", "6", "--rate", "0", "--run", "mine"
        )
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith("run mine: 6 batches, 600 transactions, 6 labels records")
        Writer(kafka, "test").publish([Out(topic_name("transactions", prefix), "bad", b"junk")])
        pipeline.wait_ready(60)
        assert await_answers(kafka, prefix, 7) == 7
    again = ["replay", "--from-prefix", prefix, "--to-prefix", f"{prefix}-again", "--bundle", str(bundle_dir)]
    done = selfheal(kafka, tmp_path, *again)
    assert done.returncode == 0, done.stderr
    assert "6 batches, 1 dead letters and 0 adapters sent" in done.stdout.replace("\n", "")
    assert "compared 6 batches, 600 probabilities: all the same bits" in done.stdout
    twice = selfheal(kafka, tmp_path, *again)
    assert twice.returncode == 2
    assert "needs a fresh prefix" in twice.stderr
