"""The pipeline on one machine: the services as real processes that share nothing but Kafka.

    with LocalPipeline(kafka, prefix, bundle, producer=["--rate", "2"]) as pipeline:
        pipeline.wait_ready(30)  # the producer starts when the others are there

Nothing is left running after the block; nor when this process is killed (child.py, process.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfheal.child import Child
from selfheal.restarts import Verdict
from selfheal.supervisor import Supervisor
from shared.bundle import write_whole
from shared.errors import OperatorError, Refused, SelfhealError, TimedOut
from shared.kafka import Follower, Out, Writer, create_topics
from shared.records import Event, decode_event, encode
from shared.settings import kafka_settings
from shared.telemetry import wall_clock
from shared.topics import topic_name

SERVICES = ("producer", "scorer", "healer", "monitor")  # in this order they are ended
COMMANDS = {"producer": "produce", "scorer": "score", "healer": "heal", "monitor": "monitor"}
EVENT_BUDGET_S = 5.0  # a broker that is gone may well be why the service ended: do not wait for it for long


class LocalPipeline:
    """Producer, scorers, healer, monitor; topics are made when missing.

    without: services to leave out. env: more settings for all of them (SCORER_TURN_MAX and so on). thresholds:
    threshold_config.json, or its content. producer: arguments of `selfheal produce`. run_dir: gets logs/. notice:
    told when a service ended, from another thread.
    """

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, bundle: Path, *, scorers: int = 1,
        without: Collection[str] = (), env: Mapping[str, str] | None = None,
        thresholds: Path | Mapping[str, float] | None = None, policy: str = "guarded",
        producer: Sequence[str] = (), run_dir: Path = Path(".selfheal"), partitions: int = 6,
        notice: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        if unknown := sorted(set(without) - set(SERVICES)):
            raise OperatorError(f"--without {unknown[0]}: choose from {', '.join(SERVICES)}")
        self.kafka, self.prefix, self.run_dir = dict(kafka), prefix, run_dir
        self._partitions, self._thresholds, self._notice = partitions, thresholds, notice or (lambda _text: None)
        own = {"SELFHEAL_PREFIX": prefix, "SELFHEAL_BUNDLE": str(bundle.resolve()), "MONITOR_POLICY": policy}
        self._env = {**environment(kafka), **own, **(env or {})}
        logs = run_dir / "logs"
        children = []
        for service in SERVICES:
            if service in without:
                continue
            for slot in range(scorers if service == "scorer" else 1):
                args = [COMMANDS[service], *(["--slot", str(slot)] if service != "monitor" else [])]
                args += producer if service == "producer" else ()
                children.append(Child(service, str(slot), args, logs / f"{service}-{slot}.log", self._env))
        for child in children:
            child.held = child.service == "producer" and len(children) > 1
        self.children: list[Child] = children
        self._supervisor = Supervisor(children, self._ended)
        self._events: Follower | None = None

    def __enter__(self) -> LocalPipeline:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Topics, then processes; does not wait until they are ready."""
        create_topics(self.kafka, self.prefix, partitions=self._partitions)
        if self._thresholds is not None:
            self._env_all("MONITOR_THRESHOLDS", str(self._threshold_file(self._thresholds)))
        self._events = Follower(self.kafka, [topic_name("events", self.prefix)], name="ready", from_end=True)
        for _ in self._events.until_end(EVENT_BUDGET_S):
            pass  # it stands at the end before the first service can say anything
        self._supervisor.start()

    def stop(self) -> None:
        """End every process, in order, within 10 s each; what does not end is killed. Idempotent."""
        for name in self._supervisor.stop():
            self._notice(f"{name} did not end in time and was killed")
        self._done_following()

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Until every service has published service-started; the producer is started last, by this, when the others
        are there to see what it sends. Raises OperatorError with the end of a log: one cannot start, or time is up."""
        end = time.monotonic() + deadline_s
        started: set[int] = set()
        while self._events is not None and (missing := [c for c in self.children if not _seen(c, started)]):
            self._insist_on(missing, out_of_time=time.monotonic() > end, deadline_s=deadline_s)
            if all(c.held for c in missing):
                self._supervisor.release()
            for record in self._events.take(0.1):
                started |= _started_pid(record.value)
        self._done_following()

    def _done_following(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def wait_for(self, service: str, deadline_s: float) -> int:
        """Until a service has ended for good (a producer that is through); its exit code. Raises TimedOut."""
        end = time.monotonic() + deadline_s
        group = [c for c in self.children if c.service == service]
        while not all(c.over for c in group):
            if time.monotonic() > end:
                raise TimedOut(f"{service} has not ended within {deadline_s:g} s")
            time.sleep(0.05)
        return max((c.exit_code or 0 for c in group), default=0)

    def ended(self, service: str) -> bool:
        """Whether a service has ended and will not be started again."""
        return all(c.over for c in self.children if c.service == service)

    def failed(self) -> list[Child]:
        """Services that ended badly and will not be started again."""
        return [c for c in self.children if c.over and c.exit_code]

    def _env_all(self, name: str, value: str) -> None:
        for child in self.children:
            child.set_env(name, value)

    def _threshold_file(self, thresholds: Path | Mapping[str, float]) -> Path:
        if isinstance(thresholds, Path):
            return thresholds.resolve()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        path = (self.run_dir / "threshold_config.json").resolve()
        write_whole(path, msgspec.json.format(msgspec.json.encode(dict(thresholds)), indent=1))
        return path

    def _insist_on(self, missing: list[Child], *, out_of_time: bool, deadline_s: float) -> None:
        for child in missing:
            if child.over or out_of_time:
                what = f"ended with exit code {child.exit_code}" if child.over else f"not ready after {deadline_s:g} s"
                raise OperatorError(f"{child.name} {what}. The end of {child.log}:\n{child.log_tail()}")

    def _ended(self, child: Child, code: int, then: Verdict) -> None:
        if then.after_s is None:
            if code:
                self._notice(f"{child.name} ended: {then.why} (exit code {code}). {child.log}:\n{child.log_tail()}")
            return
        message = f"{child.name} ended ({then.why}) and is started again in {then.after_s:g} s (attempt {then.attempt})"
        self._notice(message)
        facts = {"slot": child.slot, "exit_code": code, "attempt": then.attempt, "after_s": then.after_s}
        event = Event(at=wall_clock(), kind="service-restarted", message=message, service=child.service, facts=facts)
        try:
            writer = Writer(self.kafka, "supervisor", budget_s=EVENT_BUDGET_S)
            writer.publish([Out(topic_name("events", self.prefix), child.service, encode(event))])
        except SelfhealError as exc:
            self._notice(f"the event service-restarted could not be published: {exc}")


def _seen(child: Child, started: set[int]) -> bool:
    """Whether it said that it started, or is through already: a producer with little to send may be quick."""
    return child.pid in started or (child.over and child.exit_code == 0)


def _started_pid(value: bytes | None) -> set[int]:
    """The process that a service-started event names; empty for any other record."""
    try:
        event = decode_event(value)
    except Refused:
        return set()
    return {int(event.facts.get("pid", -1))} if event.kind == "service-started" else set()


def environment(kafka: Mapping[str, Any]) -> dict[str, str]:
    """Ours, with the KAFKA_* of exactly this cluster. Where they say the same, secrets stay in their files."""
    env = dict(os.environ)
    try:
        same = kafka_settings(env) == dict(kafka)
    except OperatorError:
        same = False
    if same:
        return env
    env = {k: v for k, v in env.items() if not k.startswith("KAFKA_")}
    return env | {"KAFKA_" + k.upper().replace(".", "_"): str(v) for k, v in kafka.items()}
