"""What the rules read: records, and where each partition begins and ends. Behind it stands Kafka, or a test's lists.

Two ends. Every record below `settled` is decided, and so is everything that was committed with it or had to come
before it: its counterparts lie below `end`. So what is below `settled` must have its counterpart, and what lies between
the two only serves as one. On a pipeline that stands still the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

Name = Literal[
    "transactions", "labels", "predictions", "conflicts", "heal-requests", "adapters", "control", "events", "metrics",
    "dead-letters", "state",
]  # fmt: skip
NAMES: tuple[Name, ...] = (
    "transactions", "labels", "predictions", "conflicts", "heal-requests", "adapters", "control", "events", "metrics",
    "dead-letters", "state",
)  # fmt: skip
# Which service reads what under its group: protocol.md, Identities, and the topics table of the design.
GROUPS: dict[str, tuple[Name, ...]] = {
    "scorer": ("transactions",),
    "healer": ("heal-requests",),
    "monitor": ("predictions", "labels", "events"),
}


class CannotAudit(Exception):
    """No broker, no topic, no bundle, or a topic that cannot be read to its end: what is wrong, and the way out."""


class Record(NamedTuple):
    """at_ms: the record's Kafka timestamp, Unix epoch ms. headers: the last of those with one name."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    at_ms: int

    @property
    def where(self) -> str:
        """topic/partition/offset, as dead letters spell it."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Span(NamedTuple):
    """Of one partition. low: above 0 where retention took the beginning."""

    low: int
    settled: int
    end: int


class Log(Protocol):
    """All topics of one prefix under read_committed."""

    def topic(self, name: Name) -> str:
        """The full name."""
        ...

    def spans(self, name: Name) -> Mapping[int, Span]:
        """By partition."""
        ...

    def read(self, name: Name, partition: int | None = None) -> Iterator[Record]:
        """Records below `end`, in order; partition after partition where none is named. Raises CannotAudit."""
        ...

    def get(self, name: Name, partition: int, offset: int) -> Record | None:
        """One record; None where there is none below `end`. Cheap where offsets asked for rise. Raises CannotAudit."""
        ...

    def committed(self, group: str, name: Name) -> Mapping[int, int]:
        """Offsets that a service's group had committed when `settled` was taken; partitions without one are missing."""
        ...


def settled(log: Log, name: Name, record: Record) -> bool:
    """Whether its counterparts must be there."""
    return record.offset < log.spans(name)[record.partition].settled


def truncated(log: Log, name: Name) -> bool:
    """Whether retention has taken records, so that a counterpart may be gone for a good reason."""
    return any(span.low > 0 for span in log.spans(name).values())
