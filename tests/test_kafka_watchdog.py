"""A call that never comes back ends the process, and so does a loop that stands still; others, and a process that was
stopped, do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys, time
from shared.kafka import watchdog
from shared.kafka.client import Deadline, insist
from shared.telemetry import set_up_logging
set_up_logging("CRITICAL")
watchdog.GRACE_S, watchdog.LOOK_S = 0.5, 0.1
for lasts in map(float, sys.argv[1:]):
    print("calls", flush=True)
    insist(lambda _: time.sleep(lasts), Deadline(0.5))
print("all came back", flush=True)
"""
LOOP = """
import sys, time
from shared.kafka import watchdog
from shared.telemetry import set_up_logging
set_up_logging("CRITICAL")
watchdog.GRACE_S, watchdog.LOOK_S = 0.5, 0.1
lasts = iter(map(float, sys.argv[1:]))
asked = watchdog.WATCHDOG.kept(lambda: False, 0.5)
for turn in lasts:
    assert not asked()
    print("turn", flush=True)
    time.sleep(turn)
"""


def _start(*lasts: float, script: str = SCRIPT) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, lasts)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_call_that_never_comes_back_ends_the_process() -> None:
    with _start(0.3, 60.0) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert out.split() == ["calls", "calls"]
    assert "has not come back" in err


def test_calls_within_their_time_go_on() -> None:
    with _start(0.4, 0.4, 0.4, 0.4) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "all came back" in out


def test_the_time_in_which_a_process_is_stopped_does_not_count() -> None:
    with _start(0.8) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "calls\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2.0)  # the thing itself: longer than time-out and grace together
        os.kill(process.pid, signal.SIGCONT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "all came back" in out


def test_a_loop_that_stands_still_ends_the_process() -> None:
    with _start(0.4, 0.4, 0.4, 60.0, script=LOOP) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert out.split() == ["turn"] * 4
    assert "a loop has not come round" in err
