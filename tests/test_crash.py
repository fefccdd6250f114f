"""Crash points: each compiled in once, dead at the passing that was asked for, and nothing otherwise."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from shared import crash
from shared.errors import OperatorError

ROOT = Path(__file__).parents[1]
ROOMS = ("producer", "scorer", "healer", "monitor", "shared")
PASSED = re.compile(r"crash_(?:point|soon|between)\(\s*\"([a-z.-]+)\"")
DIES = """
from shared.crash import arm, crash_point
arm("session.before-begin:3")
for i in range(5):
    print(i, flush=True)
    crash_point("session.after-begin")
    crash_point("session.before-begin")
"""


class Said(NamedTuple):
    topic: str


@pytest.fixture(autouse=True)
def disarmed():
    yield
    crash.arm("")


def test_every_point_is_compiled_in_exactly_once() -> None:
    texts = [path.read_text("utf-8") for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    found = Counter(name for text in texts for name in PASSED.findall(text))
    assert set(found) == set(crash.CRASH_POINTS)
    # Each policy of the healer fetches and fits in a way of its own.
    assert {name for name, places in found.items() if places > 1} <= {"healer.before-fetch", "healer.after-fit"}
    assert len(crash.CRASH_POINTS) >= 12


def test_a_process_dies_at_the_passing_that_was_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]
    assert re.fullmatch(rf"{crash.SAID} session\.before-begin \d{{13}}\n", done.stderr)


@pytest.mark.parametrize(
    "spec", ["nowhere", "session.before-begin:0", "session.before-begin:x", "session.before-begin:-1"]
)
def test_what_cannot_be_armed_names_the_points(spec: str) -> None:
    with pytest.raises(OperatorError, match=r"SELFHEAL_CRASH_AT=.*session\.after-commit"):
        crash.arm(spec)


def test_unarmed_it_costs_and_changes_nothing() -> None:
    outputs = [Said("a")]
    assert crash.crash_between("monitor.after-state", "a", outputs) is outputs
    crash.crash_point("session.after-commit")


@pytest.mark.parametrize(("topics", "passed_before"), [("aab", [2]), ("ba", [2]), ("abab", [1, 3]), ("bb", [])])
def test_a_point_between_is_where_the_records_of_a_topic_end(
    topics: str, passed_before: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    crash.arm("monitor.after-state:1000")
    given: list[Said] = []
    passed: list[int] = []
    monkeypatch.setattr(crash, "crash_point", lambda name: passed.append(len(given)))
    for said in crash.crash_between("monitor.after-state", "a", [Said(t) for t in topics]):
        given.append(said)
    assert [s.topic for s in given] == list(topics)
    assert passed == passed_before
