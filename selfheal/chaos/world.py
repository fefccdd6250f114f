"""What the acts of a chaos run work on, and the record of what they did."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfheal.broker import EmbeddedBroker
from selfheal.chaos.plan import Act
from selfheal.chaos.victims import Victim
from selfheal.chaos.watch import Watch
from selfheal.child import Child
from shared.errors import SelfhealError
from shared.kafka import Out, Writer
from shared.records import FIRST_VERSION, HealRequest, encode
from shared.telemetry import epoch_ms, wall_clock
from shared.topics import topic_name

ASK_S = 30.0
Step = Iterator[None]
"""An act under way: each step of it looks once and does not wait."""


@dataclass(frozen=True)
class Death:
    """A SIGKILL that a service got. point: of a crash, empty where the moment was chance. left_alone: nothing was armed
    to kill its successor at once."""

    victim: str
    at_ms: int
    point: str
    left_alone: bool


@dataclass
class Record:
    """deaths: of services. broken: kinds of broker faults, how often. missed: points that were armed and not reached.
    told: what happened to those that have to end by themselves. faults: what should not have happened."""

    deaths: list[Death] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Missed(SelfhealError):
    """What an act waits for did not come in its time."""


class NotBegun(Missed):
    """Nothing has been done yet: the act can be tried again as it is."""


class World:
    """bundle: its hash. say: told of everything that is done, from the thread that runs the acts."""

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, broker: EmbeddedBroker, victims: list[Victim], watch: Watch,
        logs: Path, bundle: str, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.kafka, self.prefix, self.broker, self.watch, self.logs = dict(kafka), prefix, broker, watch, logs
        self.victims = {(v.child.service, v.child.slot): v for v in victims}
        self.record, self.say, self._bundle = Record(), say, bundle
        self._asked = itertools.count(1)
        self.twins: list[Child] = []
        self.broker_busy = False

    def victim(self, act: Act) -> Victim:
        return self.victims[act.service, act.slot]

    def ask_for_a_heal(self) -> None:
        """As a person may, of the newest batch: a healer that is to die over a request need not wait for a drift.
        Raises NotBegun: Kafka does not answer, or nothing was scored so far."""
        batch = self.watch.newest
        if batch is None:
            raise NotBegun("no batch to heal from so far")
        request = HealRequest(
            request_id=f"chaos-{next(self._asked)}", policy="reference", reason="chaos", base_version=FIRST_VERSION,
            bundle=self._bundle, batch_id="chaos", at=wall_clock(), transactions=[batch],
        )  # fmt: skip
        out = Out(topic_name("heal-requests", self.prefix), request.request_id, encode(request))
        try:
            Writer(self.kafka, "chaos-person", budget_s=ASK_S).publish([out])
        except SelfhealError as exc:
            raise NotBegun(f"a heal could not be asked for: {exc}") from exc

    def broke(self, kind: str) -> None:
        """Note a broker fault."""
        self.record.broken[kind] = self.record.broken.get(kind, 0) + 1

    def died(self, victim: Victim, at_ms: int, point: str = "", *, left_alone: bool = True) -> None:
        """Note a kill."""
        self.record.deaths.append(Death(victim.name, at_ms, point, left_alone))

    def killed_now(self, victim: Victim, number: int, *, left_alone: bool = True) -> None:
        """Kill it and note it."""
        self.died(victim, epoch_ms(), left_alone=left_alone)
        victim.signal(number)


def until(condition: Callable[[], object], within_s: float, what: str) -> Step:
    """Steps until it holds. Raises Missed."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise Missed(f"not within {within_s:g} s: {what}")
        yield


def wait(seconds: float) -> Step:
    """Steps for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def aside(work: Callable[[], object], within_s: float, what: str) -> Step:
    """Steps while something that blocks runs in a thread of its own. Raises what it raises, Missed."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except (SelfhealError, OSError) as exc:
            failure.append(exc)

    thread = threading.Thread(target=run, name="chaos-aside", daemon=True)
    thread.start()
    yield from until(lambda: not thread.is_alive(), within_s, what)
    if failure:
        raise failure[0]
