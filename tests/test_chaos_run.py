"""The short version of `make chaos`: one seed, every crash point, on brokers of its own; and Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shared.crash import CRASH_POINTS

pytestmark = pytest.mark.broker
SEED = "7"


def _command(*more: str) -> list[str]:
    return [sys.executable, "-P", "-m", "selfheal", "chaos", "--seed", SEED, "--minutes", "1.5", *more]


def _environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAFKA_", "SELFHEAL_"))}
    return {**kept, "TMPDIR": str(folder), "PYTHONFAULTHANDLER": "1"}


@pytest.mark.timeout(900)
def test_every_crash_point_and_the_audit_is_green(tmp_path: Path) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    done = subprocess.run(
        _command("--json", "--out", str(tmp_path / "out")), env=_environment(tmp), capture_output=True, text=True,
        timeout=880, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-3_000:]
    outcome = json.loads(done.stdout)
    assert done.returncode == 0, "\n".join([*outcome["faults"], *outcome["notices"][-8:]])
    assert outcome["green"]
    assert outcome["audit"]["ok"]
    assert set(outcome["points"]) == set(CRASH_POINTS)
    assert min(outcome["points"].values()) >= 1
    assert outcome["kills"] >= 1.5 * len(CRASH_POINTS)
    assert outcome["policy"] == "guarded"
    assert outcome["decided"]["adapter-activated"] >= 1
    assert outcome["broken"].get("disks full", 0) + len(outcome["left_out"]) == 1
    assert outcome["inside"] >= 5
    assert outcome["acknowledged"] > 300
    assert outcome["lost"] == []
    assert (outcome["unanswered"], outcome["doubled"]) == (0, 0)
    assert outcome["audit"]["rules"]["answers"]["checked"] >= outcome["acknowledged"]
    assert outcome["recovery"]["counted"] >= 1
    assert json.loads((tmp_path / "out" / "chaos.json").read_bytes())["seed"] == int(SEED)
    assert list(tmp.iterdir()) == []


@pytest.mark.timeout(300)
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        _command("--text"), env=_environment(tmp_path), stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as in a script that starts it with `&`
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "the load run" in line:
                break
        ours = psutil.Process(process.pid).children(recursive=True)
        assert len(ours) >= 7  # a broker and its guard, five services, the load
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(120) not in (0, 1)
        except subprocess.TimeoutExpired:  # say where it hangs
            process.send_signal(signal.SIGABRT)
            process.wait(10)
            raise
        gone, alive = psutil.wait_procs(ours, timeout=10)
        assert not alive
        assert gone
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_it_says_what_it_cannot_do() -> None:
    begun = time.monotonic()
    for options, words in (
        (["--minutes", "0.5"], "1.5 or more"),
        (["--brokers", "2"], "quorum"),
        (["--seeds", "1,x"], "'x' is no seed"),
    ):
        done = subprocess.run([*_command(), *options], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert words in done.stderr
    assert time.monotonic() - begun < 60
