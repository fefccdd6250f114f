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


@pytest.mark.broker
@pytest.mark.timeout(180)
def test_a_replay_with_a_drift_diagnoses_heals_and_tells(
    kafka: dict[str, str], prefix: str, bundle_dir: Path, tmp_path: Path
) -> None:
    fed = ["--batches", "50", "--rate", "0", "--seed", "9", "--flush-labels", "--bundle", str(bundle_dir)]
    assert selfheal(kafka, tmp_path, "produce", "--prefix", prefix, *fed).returncode == 0
    done = selfheal(
        kafka, tmp_path, "replay", "--from-prefix", prefix, "--to-prefix", f"{prefix}-if", "--lockstep",
        "--drift", "unit:V14:10:from=11", "--bundle", str(bundle_dir),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    (healed,) = [line for line in lines if line.startswith("heal-finished")]
    assert "V14 arrives x10 since batch 11; undone by v2" in healed
    assert sum(line.startswith("adapter-activated") for line in lines) == 1
    assert not any("the active state explains the rows as well" in line for line in lines)
    assert "50 batches judged, 50 settled, 50 with labels" in lines
    judged = next(line for line in lines if line.startswith("mean accuracy"))
    served, frozen = (float(word) for word in judged.split()[2:6:3])
    assert served > frozen + 0.1, judged
    assert "v2 active at the end" in judged
