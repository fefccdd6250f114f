"""What the acts of a chaos run work on, and the record of what they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfheal.broker import EmbeddedBroker
from selfheal.chaos.disk import Disk
from selfheal.chaos.person import Person
from selfheal.chaos.plan import Act
from selfheal.chaos.victims import Victim
from selfheal.chaos.watch import Watch
from selfheal.child import Child
from shared.records import Policy
from shared.telemetry import epoch_ms


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
    """deaths: of services. done: kinds of acts. undone: acts for which there was no time. broken: kinds of broker
    faults, how often. missed: points that were armed and not reached. told: what happened to those that have to end
    by themselves. faults: what should not have happened. away: (begin, end), epoch ms, of what was done to brokers."""

    deaths: list[Death] = field(default_factory=list)
    away: list[tuple[int, int]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    undone: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class World:
    """policy: of the monitor. disk: that the brokers write to, where it can be made full. bundle: its hash. say: told
    of everything that is done, from the thread that runs the acts."""

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, policy: Policy, broker: EmbeddedBroker, disk: Disk | None,
        victims: list[Victim], watch: Watch, logs: Path, bundle: str, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.kafka, self.prefix, self.broker, self.watch, self.logs = dict(kafka), prefix, broker, watch, logs
        self.policy, self.disk = policy, disk
        self.victims = {(v.child.service, v.child.slot): v for v in victims}
        self.record, self.say = Record(), say
        self.person = Person(kafka, prefix, policy, bundle, watch)
        self.twins: list[Child] = []
        self.broker_since: int | None = None  # epoch ms; something is being done to it

    def victim(self, act: Act) -> Victim:
        return self.victims[act.service, act.slot]

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

    def not_left_alone(self, victim: Victim) -> None:
        """Its newest death is followed by one of our making: it says nothing about recovery."""
        of = [i for i, death in enumerate(self.record.deaths) if death.victim == victim.name]
        if of:
            self.record.deaths[of[-1]] = replace(self.record.deaths[of[-1]], left_alone=False)
