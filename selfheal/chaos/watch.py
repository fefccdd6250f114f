"""What a bystander sees of a running pipeline: who is ready, when predictions come again, what is left to do."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from shared.errors import Fatal, Refused, SelfhealError
from shared.kafka import Follower, Taken, closing, group_offsets, watermarks
from shared.records import OffsetRange, decode, decode_event
from shared.telemetry import epoch_ms
from shared.topics import Name, group_name, topic_name

IN_USE_MS = 30_000
END_S = 20.0
NEWEST = 30
FIND_S = 120.0  # a broker that we killed
# What each service reads. These two are written without transactions: their end is that of the log.
READ: dict[str, tuple[Name, ...]] = {
    "scorer": ("transactions",), "healer": ("heal-requests",), "monitor": ("predictions", "labels", "events"),
}  # fmt: skip
PLAIN: tuple[Name, ...] = ("transactions", "labels")
FOLLOWED: tuple[Name, ...] = ("predictions", "heal-requests", "events")


class _Where(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int


class _Sourced(msgspec.Struct, frozen=True):
    """What is read here of a prediction."""

    source: _Where
    batch_id: str


class Watch:
    """Follows the output from now on, in a thread. started: process ids that said service-started. kinds: events by
    kind. newest: where the last batches that have a prediction were sent."""

    def __init__(self, kafka: Mapping[str, Any], prefix: str) -> None:
        self._kafka, self._prefix = dict(kafka), prefix
        self.started: set[int] = set()
        self.kinds: dict[str, int] = defaultdict(int)
        self.newest: deque[OffsetRange] = deque(maxlen=NEWEST)
        self._seen: dict[int, list[tuple[int, int]]] = defaultdict(list)  # partition: (produced, arrived), epoch ms
        self._last: dict[tuple[str, int], int] = {}
        self._ending = threading.Event()
        self._failure: SelfhealError | None = None
        self._thread = threading.Thread(target=self._follow, name="chaos-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(END_S)

    def check(self) -> None:
        """Raises what ended the watch, if something did."""
        if self._failure is not None:
            raise self._failure

    def outcomes(self) -> int:
        """How many heal requests were answered."""
        return sum(self.kinds[kind] for kind in ("heal-finished", "heal-failed", "diagnosed"))

    def recovered_s(self, since_ms: int) -> float | None:
        """Seconds from a moment (epoch ms) until every partition in use then had a prediction that was produced after
        it and committed; None where one has not had it, or none was in use.

        Of a killed scorer's partitions that is no less than the time of the latest. Which those are is not asked:
        librdkafka's admin client ends its process (an assertion in rdkafka_queue.h) when brokers are killed under it.
        """
        firsts = []
        for times in list(self._seen.values()):
            before = [produced for produced, _ in times if since_ms - IN_USE_MS <= produced <= since_ms]
            after = [arrived for produced, arrived in times if produced > since_ms]
            if before and not after:
                return None
            if before:
                firsts.append(after[0])
        return max((each - since_ms) / 1000 for each in firsts) if firsts else None

    def lag(self, budget_s: float = 15.0) -> dict[str, dict[str, int]]:
        """By service, how many records of which partition are not answered yet. Raises OperatorError, TimedOut: nobody
        says where a group stands while a transaction that moves it is open."""
        return {service: self._lag(service, names, budget_s) for service, names in READ.items()}

    def _lag(self, service: str, names: Iterable[Name], budget_s: float) -> dict[str, int]:
        topics = {topic_name(n, self._prefix): n for n in names}
        done = group_offsets(self._kafka, group_name(service, self._prefix), topics, budget_s)
        left = dict[str, int]()
        for topic, name in topics.items():
            if name in PLAIN:
                ends = {p: high for p, (_, high) in watermarks(self._kafka, topic).items()}
            else:
                ends = {p: last + 1 for (t, p), last in list(self._last.items()) if t == topic}
            left |= {f"{topic}[{p}]": end - done.get((topic, p), 0) for p, end in sorted(ends.items())}
        return {where: n for where, n in left.items() if n > 0}

    def _follow(self) -> None:
        while not self._ending.is_set():
            try:
                self._follow_with_one_client([topic_name(n, self._prefix) for n in FOLLOWED])
            except Fatal:
                continue  # a client that has lost its brokers for good (shared/kafka/pulse.py); a service would end
            except SelfhealError as exc:
                self._failure = exc
                return

    def _follow_with_one_client(self, topics: list[str]) -> None:
        with closing(Follower(self._kafka, topics, name="chaos-watch", budget_s=FIND_S)) as follower:
            while not self._ending.is_set():
                for record in follower.take(0.1):
                    where = record.topic, record.partition
                    if record.offset > self._last.get(where, -1):
                        self._last[where] = record.offset
                        self._note(record, topics)

    def _note(self, record: Taken, topics: list[str]) -> None:
        with suppress(Refused):  # the auditor judges what a record is worth
            if record.topic == topics[0]:
                prediction = decode(_Sourced, record.value)
                self._seen[prediction.source.partition].append((record.timestamp_ms, epoch_ms()))
                at = prediction.source
                if prediction.batch_id.startswith("load"):  # the producer's are smaller
                    self.newest.append(OffsetRange(
                        topic=at.topic, partition=at.partition, start=at.offset, end=at.offset + 1
                    ))  # fmt: skip
            elif record.topic == topics[2]:
                event = decode_event(record.value)
                self.kinds[event.kind] += 1
                if event.kind == "service-started":
                    self.started.add(int(event.facts.get("pid", -1)))
