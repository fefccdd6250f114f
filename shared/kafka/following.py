"""Reading whole topics, without a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import confluent_kafka as ck

from shared.errors import TimedOut
from shared.kafka.client import Complaints, Deadline, first_contact, refuse, shut
from shared.kafka.plain import Taken, plain
from shared.kafka.pulse import Pulse
from shared.kafka.reading import POLL_S, closing, ends_of, first_at, open_reader, partitions_of, watermarks
from shared.kafka.unreadable import stand_in


class Follower:
    """Reads whole topics, every partition, with no group: from the beginning, a time (Unix epoch ms), or from what
    is the end when the constructor returns. Raises OperatorError: no broker, no such topic."""

    def __init__(
        self, kafka: Mapping[str, Any], topics: Sequence[str], *, name: str = "follower", budget_s: float = 30.0,
        since_ms: int | None = None, from_end: bool = False,
    ) -> None:  # fmt: skip
        complaints = Complaints()
        self._consumer = open_reader(kafka, name, complaints)
        deadline = Deadline(budget_s)
        with first_contact(kafka, self._consumer, complaints):
            parts = [p for t in topics for p in partitions_of(self._consumer, t, deadline)]
            if since_ms is not None:
                parts = first_at(self._consumer, parts, since_ms, deadline)
            for p in parts:
                if from_end:
                    # Asked for now: OFFSET_END would be looked up in the background, maybe after the next record.
                    p.offset = ends_of(self._consumer, p, deadline)[1]
                elif since_ms is None:
                    p.offset = ck.OFFSET_BEGINNING
        self._waiting = {(p.topic, p.partition) for p in parts}
        self._ends: dict[tuple[str, int], int] = {}  # of the log, where each partition's end was first met
        self._reached: dict[tuple[str, int], int] = {}  # every offset below was read, or holds nothing for us
        self._kafka, self._topics = kafka, topics
        self._pulse = Pulse(kafka, self._consumer, topics[0])
        self._consumer.assign(parts)

    @property
    def caught_up(self) -> bool:
        """Everything that was committed when this began has been taken (more may have come since)."""
        return not self._waiting

    def take(self, timeout_s: float, most: int = 1_000) -> list[Taken]:
        """What is there, waiting at most timeout_s for the first. Raises Fatal."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            self._pulse.check()
            return []
        self._pulse.heard()
        records = []
        for message in [first, *self._consumer.consume(most - 1, 0)]:
            error = message.error()
            if error is None:
                records.append(record := plain(message))
                self._reached[record.topic, record.partition] = record.offset + 1
            elif error.code() == ck.KafkaError._PARTITION_EOF:
                self._note_end(message)
            elif (junk := stand_in(error, message, lambda where: self._reached.get(where, 0))) is not None:
                records.append(junk)
                self._reached[junk.topic, junk.partition] = junk.offset + 1
                self._consumer.seek(ck.TopicPartition(junk.topic, junk.partition, junk.offset + 1))
            else:
                refuse(error, message)
        return records

    def _note_end(self, message: Any) -> None:
        """The end that a reader of committed records meets may lie before records that are committed already:
        a commit is acknowledged before its markers are written. The end of the log itself tells."""
        where = (message.topic(), message.partition())
        self._reached[where] = message.offset()
        if where in self._waiting:
            if where not in self._ends:
                self._ends[where] = self._consumer.get_watermark_offsets(ck.TopicPartition(*where), cached=True)[1]
            if message.offset() >= self._ends[where]:
                self._waiting.discard(where)

    def until_end(self, budget_s: float) -> Iterator[Taken]:
        """Everything until it is caught up. Raises TimedOut."""
        deadline = Deadline(budget_s)
        while not self.caught_up:
            yield from self.take(min(POLL_S, deadline.left_s()))
            if deadline.passed() and not self.caught_up:
                raise TimedOut(f"could not read to the end within {budget_s:g} s")

    def catch_up(self, budget_s: float) -> Iterator[Taken]:
        """Everything published before this call, waiting for transactions that are undecided now. Raises TimedOut
        after budget_s without a record."""
        ends = {(t, p): end for t in self._topics for p, end in self._log_ends(t, budget_s).items()}
        deadline = Deadline(budget_s)
        while any(self._reached.get(where, 0) < end for where, end in ends.items()):
            if deadline.passed():
                raise TimedOut(f"could not read to the end: nothing came for {budget_s:g} s")
            if records := self.take(min(POLL_S, deadline.left_s())):
                deadline = Deadline(budget_s)
                yield from records

    def _log_ends(self, topic: str, budget_s: float) -> dict[int, int]:
        found = watermarks(self._kafka, topic, budget_s, committed=False)
        return {partition: high for partition, (_, high) in found.items()}

    def close(self) -> None:
        """Let go of the client."""
        shut(self._consumer.close)


def read_all(kafka: Mapping[str, Any], topic: str, budget_s: float = 60.0) -> list[Taken]:
    """All records of a topic that are committed when this is called. Raises OperatorError, TimedOut, Fatal."""
    with closing(Follower(kafka, [topic], name="read-all", budget_s=budget_s)) as follower:
        return list(follower.until_end(budget_s))
