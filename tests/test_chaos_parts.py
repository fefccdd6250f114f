"""What a chaos run is made of: its load's drifts, its steps, its disk, the sum of several runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from selfheal.chaos import seeds
from selfheal.chaos.drifts import DRIFTING, LAWS, Stream
from selfheal.chaos.performing import Progress, look_after, needed
from selfheal.chaos.plan import Act
from selfheal.chaos.report import Recovery, killed, recovery
from selfheal.chaos.steps import Missed, NotBegun, aside, until
from selfheal.chaos.victims import Victim
from selfheal.chaos.watch import Watch
from selfheal.chaos.world import Death, Record
from selfheal.child import Child
from selfheal.restarts import FENCED, verdict
from shared.crash import CRASH_POINTS
from shared.errors import OperatorError

FILLS = """
import errno, sys
from pathlib import Path
from selfheal.chaos.disk import disk, unshared
why = unshared()
if why:
    print("left out:", why)
    sys.exit(0)
folder = Path(sys.argv[1])
with disk(folder) as small:
    with (folder / "log").open("wb", buffering=0) as log:
        log.write(b"x" * 100_000)
        small.fill()
        try:
            while True:
                log.write(b"x" * 4096)
        except OSError as exc:
            assert exc.errno == errno.ENOSPC
        full = small.used_bytes()
        small.free()
        log.write(b"y" * 1_000_000)
    assert full < small.used_bytes() < 4_000_000
    assert (folder / "log").read_bytes().startswith(b"x" * 100_000)
    print("filled")
assert list(folder.iterdir()) == []
"""


def test_a_full_disk_says_so_and_nobody_else_sees_it(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("filled", "left out: it takes ", "left out: no mounts of our own here: "))
    assert str(folder) not in Path("/proc/mounts").read_text("utf-8")


def test_drifts_come_and_go_and_each_law_has_its_turn() -> None:
    drifting = DRIFTING["guarded"]
    stream, again = Stream(3, "guarded"), Stream(3, "guarded")
    by_law = {drifting.law(k) for k in range(1, drifting.cycle * len(LAWS) + 1)}
    assert by_law == {None, *LAWS}
    first = drifting.cycle - drifting.drifted
    assert [drifting.law(k) for k in (1, first - 1, first, drifting.cycle - 1, drifting.cycle)] == [
        None, None, LAWS[0], LAWS[0], None,
    ]  # fmt: skip
    for k in (1, first):
        assert np.array_equal(stream.batch(k).rows, again.batch(k).rows)
    clean, drifted = (np.vstack([stream.batch(k).rows[:, 7] for k in range(a, a + 20)]) for a in (1, first))
    assert drifted.std() > 5 * clean.std()


def test_steps_say_what_they_wait_for_and_end() -> None:
    there: list[int] = []
    steps = until(lambda: there, 60, "it is there")
    assert next(steps) == "it is there"
    there.append(1)
    assert list(steps) == []
    with pytest.raises(Missed, match="not within -1 s: it never is"):
        list(until(lambda: False, -1, "it never is"))

    def fails() -> None:
        raise NotBegun("no")

    with pytest.raises(NotBegun, match="no"):
        list(aside(fails, 30, "it fails"))


def test_a_victim_comes_back_by_the_supervisor_whatever_was_done_to_it(tmp_path: Path) -> None:
    child = Child("scorer", "0", [], tmp_path / "log", {})
    victim = Victim(child, Watch({}, "p"))
    assert victim.starts_in_s() == 0
    victim.signal(signal.SIGKILL)
    no_broker = verdict(2, 3.0, child.attempt + 1)  # killed, then started while the broker was away
    child.attempt, child.restart_at = no_broker.attempt, time.monotonic() + 60
    victim.arm("session.in-commit:1")
    assert 50 < victim.starts_in_s() <= 60
    assert verdict(2, 3.0, child.attempt).after_s == 1.0
    for _ in range(5):
        child.attempt += 1
        victim.arm("")
        assert child.attempt == 1


def test_what_ended_by_itself_comes_back_and_is_a_fault_but_for_one_that_a_twin_of_ours_fenced(tmp_path: Path) -> None:
    told: list[str] = []
    children = [Child("monitor", str(slot), [], tmp_path / f"log-{slot}", {}) for slot in range(4)]
    victims = [Victim(child, Watch({}, "p")) for child in children]
    for victim, code in zip(victims, (FENCED, 2, 0, None), strict=True):
        victim.child.exit_code, victim.child.over = code, code is not None
    victims[2].busy = True  # it was asked to end
    world = SimpleNamespace(
        victims=dict(enumerate(victims)), twins=[Child("monitor", "0", [], tmp_path / "t", {})], record=Record()
    )
    look_after(world, told.append)
    assert [victim.child.over for victim in victims] == [False, False, True, False]
    assert [victim.child.restart_at is None for victim in victims] == [False, False, True, True]
    assert told == world.record.faults == ["monitor-1 gave up, exit code 2: "]
    assert victims[1].state() == "ended with exit code 2"


def test_late_acts_are_left_undone_but_for_what_a_run_must_have() -> None:
    reached, running = "session.in-commit", "healer.after-fit"
    record = Record(deaths=[Death("scorer-0", 1, reached, True)], done={"kill", "crash"})
    points = (reached, running, "scorer.before-swap", "scorer.before-swap")
    late = [Act(0.0, "crash", "scorer", "0", point) for point in points]
    late += [Act(0.0, "kill", "scorer", "0"), Act(0.0, "grow"), Act(0.0, "grow")]
    kept = needed(late, [Act(0.0, "crash", "healer", "0", running)], record)
    assert kept == [late[2], late[5]]


def test_a_long_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = [100.0]
    monkeypatch.setattr("selfheal.chaos.performing.time.monotonic", lambda: now[0])
    progress = Progress(said.append)
    for at in (105.0, 114.9, 115.0, 120.0):
        now[0] = at
        progress(f"at {at:g}")
    progress.heard()
    now[0] = 134.0
    progress("too soon")
    assert said == ["at 115"]


def test_seeds_as_written() -> None:
    assert seeds.parse("1,2, 7") == [1, 2, 7]
    assert seeds.parse("1-5") == [1, 2, 3, 4, 5]
    for wrong in ("", "a", "1,,2", "1,1", "5-1", "-3"):
        with pytest.raises(OperatorError, match="--seeds"):
            seeds.parse(wrong)


def test_recovery_beside_a_broker_fault_is_told_apart() -> None:
    deaths = [Death("scorer-0", at, "", True) for at in (1_000, 50_000)] + [Death("monitor-0", 1_000, "", True)]
    recovered_s = {1_000: 4.0, 50_000: 12.0}.get
    kills = killed(deaths, recovered_s)
    assert [k.recovered_s for k in kills] == [4.0, 12.0, None]
    found = recovery(kills, [(60_000, 65_000)])
    assert (found.took_s, found.alone_s, found.median_s) == ([4.0, 12.0], [4.0], 8.0)
    between = Death("scorer-1", 4_500, "", False)
    assert recovery(killed([*deaths, between], recovered_s), []).alone_s == [12.0]
    between = Death("scorer-1", 60_000, "", False)
    assert recovery(killed([*deaths, between], recovered_s), []).alone_s == [4.0]
    assert recovery(kills, [(0, 990), (70_000, 80_000)]).alone_s == [4.0, 12.0]


def test_several_runs_are_summed_and_one_without_a_record_is_a_fault() -> None:
    base = seeds.without_record(1, "x")
    points = dict.fromkeys(CRASH_POINTS, 1) | {"session.in-commit": 4}
    good = type(base)(**{
        **{f: getattr(base, f) for f in base.__struct_fields__}, "kills": 40, "inside": 7, "points": points,
        "recovery": Recovery(3, [2.0, 3.0, 9.0], 3.0, 9.0, 0, [2.0, 3.0]), "acknowledged": 100,
        "faults": [], "green": True,
    })  # fmt: skip
    bad = seeds.without_record(2, "ended with exit code -6 before its audit")
    total = seeds.total([good, good, bad])
    assert (total.runs, total.green, total.kills, total.inside) == (3, 2, 80, 14)
    assert total.points["session.in-commit"] == 8
    assert (total.median_s, total.alone_median_s) == (3.0, 2.5)
    assert total.faults == ["seed 2: ended with exit code -6 before its audit"]
    said = "seed 1: green, 40 kills, 7 inside open transactions, 17 of 17 points, 0 lost, 0 doubled, 100 messages"
    assert seeds.line(good).startswith(said)
    text = seeds.lines(total)
    assert text[0] == "FAULT  seed 2: ended with exit code -6 before its audit"
    assert text[1].startswith("total: 2 of 3 green, 80 kills, 14 inside open transactions, each point hit 2 times")
