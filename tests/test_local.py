"""Services as processes: restarted when they die, ended in order, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfheal import child as children
from selfheal.child import Child
from selfheal.local import LocalPipeline, environment
from selfheal.restarts import verdict
from selfheal.supervisor import Supervisor
from shared.errors import OperatorError, TimedOut
from shared.kafka import read_all
from shared.records import decode_event
from shared.topics import topic_name

WaitFor = Callable[..., None]


def test_back_off_doubles_to_its_limit_and_starts_anew_after_a_healthy_run() -> None:
    delays, attempt = [], 0
    for _ in range(9):
        then = verdict(-signal.SIGKILL, 1.0, attempt)
        attempt = then.attempt
        delays.append(then.after_s)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert verdict(1, 60.0, attempt) == verdict(1, 1.0, 0)
    assert verdict(1, 1.0, 100_000).after_s == 30


@pytest.mark.parametrize("code", [0, 2, 4])
def test_a_clean_end_a_persons_business_and_the_fenced_stay_ended(code: int) -> None:
    assert verdict(code, 1.0, 0).after_s is None


def test_what_worked_before_is_started_again_though_it_asks_for_a_person() -> None:
    assert verdict(2, 1.0, 1).after_s == 1
    assert verdict(2, 3_600.0, 0).after_s == 0.5


def test_kafka_settings_reach_the_services_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "me")
    env = environment({"bootstrap.servers": "here:1", "client.rack": "r"})
    assert {k: v for k, v in env.items() if k.startswith("KAFKA_")} == {
        "KAFKA_BOOTSTRAP_SERVERS": "here:1", "KAFKA_CLIENT_RACK": "r",
    }  # fmt: skip
    same = environment({"bootstrap.servers": "elsewhere:9092", "sasl.username": "me"})
    assert same == dict(os.environ)


def test_without_a_service_that_does_not_exist_names_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="producer, scorer, healer, monitor"):
        LocalPipeline({"bootstrap.servers": "x:1"}, "", tmp_path, without=["scorers"])


class Script(Child):
    """A child that runs a Python script in place of a service."""

    def __init__(self, name: str, script: str, folder: Path) -> None:
        super().__init__(name, "0", [], folder / f"{name}.log", dict(os.environ))
        self._script = script

    def _command(self) -> list[str]:
        return [sys.executable, "-c", self._script]


def test_children_end_in_order_and_the_stubborn_are_killed(tmp_path: Path, wait_for: WaitFor) -> None:
    order = tmp_path / "order"
    polite = f"""
import signal, sys
def end(*_):
    with open({str(order)!r}, "a") as f: print(NAME, file=f)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
signal.pause()
"""
    stubborn = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
    scripts = [Script(n, polite.replace("NAME", repr(n)), tmp_path) for n in ("producer", "scorer")]
    scripts.append(Script("monitor", stubborn, tmp_path))
    supervisor = Supervisor(scripts, lambda *_: None)
    supervisor.start()
    wait_for(lambda: all("ready" in s.log_tail() for s in scripts), "three scripts run")
    assert supervisor.stop(grace_s=1.0) == ["monitor-0"]
    assert order.read_text().split() == ["producer", "scorer"]
    assert [s.exit_code for s in scripts] == [0, 0, -signal.SIGKILL]


def test_a_log_is_bounded_and_the_child_writes_on(
    tmp_path: Path, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "LOG_MAX_BYTES", 5_000)
    script = Script("noisy", "import time\nwhile 1: print('x' * 99, flush=True); time.sleep(0.001)", tmp_path)
    supervisor = Supervisor([script], lambda *_: None)
    supervisor.start()
    try:
        old = script.log.with_suffix(".log.1")
        wait_for(old.exists, "the log is put aside")
        wait_for(lambda: script.log.stat().st_size > 0, "the child writes on")
        assert script.log.read_bytes()[:1] == b"x"  # appended at the new beginning, not after a hole
    finally:
        supervisor.stop(grace_s=1.0)


def started(kafka: dict[str, str], prefix: str) -> list[Any]:
    events = [decode_event(r.value) for r in read_all(kafka, topic_name("events", prefix))]
    return [e for e in events if e.kind in ("service-started", "service-restarted", "service-stopped")]


@pytest.mark.broker
def test_a_killed_scorer_comes_back_with_an_event(
    kafka: dict[str, str], prefix: str, bundle_dir: Path, tmp_path: Path, wait_for: WaitFor
) -> None:
    told: list[str] = []
    pipeline = LocalPipeline(
        kafka, prefix, bundle_dir, without=["producer", "healer", "monitor"], run_dir=tmp_path, notice=told.append
    )
    with pipeline:
        pipeline.wait_ready(60)
        (scorer,) = pipeline.children
        first = scorer.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(
            lambda: sum(e.kind == "service-started" for e in started(kafka, prefix)) == 2, "a second scorer started", 60
        )
        second = scorer.pid
        assert second not in (None, first)
        with pytest.raises(TimedOut):
            pipeline.wait_for("scorer", 0.1)
    kinds = [e.kind for e in started(kafka, prefix)]
    assert kinds == ["service-started", "service-restarted", "service-started", "service-stopped"]
    restarted = started(kafka, prefix)[1]
    assert (restarted.service, restarted.facts["exit_code"], restarted.facts["attempt"]) == ("scorer", -9, 1)
    assert "killed by signal 9" in told[0]
    assert not any(psutil.pid_exists(p) for p in (first, second) if p is not None)


@pytest.mark.broker
def test_a_service_that_cannot_start_is_told_with_its_words(kafka: dict[str, str], prefix: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pipeline = LocalPipeline(
        kafka, prefix, tmp_path / "empty", without=["producer", "healer", "monitor"], run_dir=tmp_path
    )
    with pipeline, pytest.raises(OperatorError, match=r"(?s)scorer-0 ended with exit code 2.*no bundle at"):
        pipeline.wait_ready(60)


@contextmanager
def up(kafka: dict[str, str], prefix: str, bundle: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`selfheal up` on the test's broker, with a producer and a scorer."""
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka["bootstrap.servers"]}
    command = [sys.executable, "-P", "-m", "selfheal", "up", "--prefix", prefix, "--bundle", str(bundle)]
    command += ["--without", "healer", "--without", "monitor", "--data-dir", str(folder)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def family(process: subprocess.Popen[bytes], folder: Path, wait_for: WaitFor) -> list[psutil.Process]:
    """The processes that `up` has started, once it says that all of them are ready."""

    def ready() -> bool:
        assert process.poll() is None, (folder / "up.log").read_text()
        return "ready" in (folder / "up.log").read_text()

    wait_for(ready, "up is ready", 60)
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) == 2
    return list(found)


@pytest.mark.broker
def test_sigkill_of_up_leaves_no_process_behind(
    kafka: dict[str, str], prefix: str, bundle_dir: Path, tmp_path: Path, wait_for: WaitFor
) -> None:
    with up(kafka, prefix, bundle_dir, tmp_path) as process:
        services = family(process, tmp_path, wait_for)
        process.kill()
        process.wait()
        wait_for(lambda: not any(gone_or_not(s) for s in services), "no service is left", 10)


def gone_or_not(service: psutil.Process) -> bool:
    """Whether it still runs; an orphan that nobody waits for stays in the table as a zombie."""
    try:
        return bool(service.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.broker
def test_ctrl_c_reaches_only_up_which_ends_all(
    kafka: dict[str, str], prefix: str, bundle_dir: Path, tmp_path: Path, wait_for: WaitFor
) -> None:
    with up(kafka, prefix, bundle_dir, tmp_path) as process:
        services = family(process, tmp_path, wait_for)
        before = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
        assert process.wait(30) == 130
        assert time.monotonic() - before < 25
        assert not any(gone_or_not(s) for s in services)
    stopped = [e.service for e in started(kafka, prefix) if e.kind == "service-stopped"]
    assert stopped == ["producer", "scorer"]
