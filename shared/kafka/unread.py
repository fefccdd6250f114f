"""Finds partitions that no member of the group reads.

The leader of a group hands out partitions, and looks out for new ones. A static member that comes back keeps what it
had without a rebalance, and a leader that comes back so is not told that it leads. Hence a topic that grows while the
leader is away, or just before, would have partitions that nobody reads for as long as all members come back in time
(the newer protocol tells such a leader, KIP-814; librdkafka 2.16 does not speak it). Whoever joins anew brings the
rebalance that hands them out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import confluent_kafka as ck

LOOK_S = 10.0  # between two looks; found in two of them: whoever got it meanwhile has committed something by then
_ANSWER_S = 0.5

Where = tuple[str, int]


class Asking(Protocol):
    """A consumer of a group."""

    def assignment(self) -> list[ck.TopicPartition]: ...
    def list_topics(self, topic: str, /, *, timeout: float) -> Any: ...
    def committed(self, partitions: list[ck.TopicPartition], /, *, timeout: float) -> list[ck.TopicPartition]: ...
    def get_watermark_offsets(self, partition: ck.TopicPartition, /, *, timeout: float) -> tuple[int, int]: ...


class Unread:
    """Of one consumer, which belongs to the thread that calls this."""

    def __init__(self, client: Asking, topics: Sequence[str]) -> None:
        self._client, self._topics = client, topics
        self._next, self._before = time.monotonic() + LOOK_S, set[Where]()

    def look(self) -> list[Where]:
        """(topic, partition) of what nobody reads, sorted; empty between two looks. Blocks for 0.5 s a question at
        most; where nobody answers, nothing is found."""
        if time.monotonic() < self._next:
            return []
        try:
            now = self._without_a_reader()
        except ck.KafkaException:  # a broker is away, or the group rebalances
            now = set()
        found, self._before = sorted(now & self._before), now
        if found:
            self._before = set()
        self._next = time.monotonic() + LOOK_S
        return found

    def _without_a_reader(self) -> set[Where]:
        there = {
            (topic, p)
            for topic in self._topics
            for p in self._client.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions
        }
        mine = {(p.topic, p.partition) for p in self._client.assignment()}
        if not (others := sorted(there - mine)):
            return set()
        committed = self._client.committed([ck.TopicPartition(*where) for where in others], timeout=_ANSWER_S)
        # Where the group has committed nothing the offset is negative; also where nobody can say, as while a
        # transaction that moves it is open.
        never = {(p.topic, p.partition) for p in committed if p.offset < 0 and p.error is None}
        return {where for where in never if self._has_records(where)}

    def _has_records(self, where: Where) -> bool:
        low, high = self._client.get_watermark_offsets(ck.TopicPartition(*where), timeout=_ANSWER_S)
        return high > low
