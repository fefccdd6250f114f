"""What the services said and asked: events and heal requests, read once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from audit.contract import json_object
from audit.log import Log, Record


class Said(NamedTuple):
    """An events record; its facts stand beside kind and service."""

    kind: str
    service: str
    facts: dict[str, Any]
    record: Record  # without its value

    def text(self, fact: str) -> str | None:
        """A fact that is text."""
        value = self.facts.get(fact)
        return value if isinstance(value, str) else None

    def number(self, fact: str) -> float | None:
        """A fact that is a number."""
        value = self.facts.get(fact)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class Asked(NamedTuple):
    """A heal-requests record. body, request_id: None where it is not one."""

    request_id: str | None
    body: dict[str, Any] | None
    record: Record


class Events:
    """All of one audit. Routine starts and stops are kept too: they say who ran."""

    def __init__(self, log: Log) -> None:
        self.all: list[Said] = []
        self.unreadable: list[Record] = []
        for record in log.read("events"):
            body = json_object(record.value)
            if body is None or not isinstance(body.get("kind"), str):
                self.unreadable.append(record._replace(value=None))
                continue
            said = Said(body["kind"], str(body.get("service", "")), body, record._replace(value=None))
            self.all.append(said)
        self.asked: list[Asked] = []
        for record in log.read("heal-requests"):
            body = json_object(record.value)
            named = body and body.get("request_id")
            self.asked.append(Asked(named if isinstance(named, str) and named else None, body, record))

    def of(self, *kinds: str, service: str | None = None) -> Iterator[Said]:
        """In the order they were published."""
        return (s for s in self.all if s.kind in kinds and service in (None, s.service))

    @property
    def policies(self) -> set[str]:
        """That a monitor was started with."""
        return {p for s in self.of("service-started", service="monitor") if (p := s.text("policy"))}

    @property
    def patient(self) -> bool:
        """Whether no monitor judged batches whose labels had not all come; where one did not say so, it may have."""
        return {s.number("label_patience") for s in self.of("service-started", service="monitor")} == {0.0}

    @property
    def scorers(self) -> set[str]:
        """Slots under which scorers were started."""
        return {str(s.facts.get("slot")) for s in self.of("service-started", service="scorer")}

    def refused(self) -> tuple[set[str], set[str]]:
        """(versions, records) of adapters that a scorer could not use."""
        said = [*self.of("adapter-rejected", service="scorer")]
        records = {
            r for s in self.of("adapter-rejected", "record-refused", service="scorer") if (r := s.text("record"))
        }
        return {v for s in said if (v := s.text("version"))}, records

    def lowest_share(self) -> tuple[float, int | None]:
        """The smallest share of the batches that the monitor ever read, and the seed it was picked with."""
        said = [*self.of("thinning-changed", service="monitor")]
        seeds = {int(n) for s in said if (n := s.number("seed")) is not None}
        shares = [n for s in said if (n := s.number("share")) is not None]
        return min(shares, default=1.0), seeds.pop() if len(seeds) == 1 else None
