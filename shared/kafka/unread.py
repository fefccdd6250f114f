"""Finds partitions that have records which nobody reads, though the group looks healthy.

The leader of a group hands out partitions, and looks out for new ones. A static member that comes back keeps what it
had without a rebalance, and a leader that comes back so is not told that it leads. Hence a topic that grows while the
leader is away, or just before, would have partitions that nobody reads for as long as all members come back in time
(the newer protocol tells such a leader, KIP-814; librdkafka 2.16 does not speak it). And a client may hold a partition
and be handed nothing of it. Whoever joins anew brings the rebalance that hands partitions out, and begins where the
group stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import confluent_kafka as ck

from shared.errors import TimedOut

LOOK_S = 15.0  # longer than a dead replica keeps what it had (the session timeout)
# Looks in which a partition stands still before it is found: whoever got it meanwhile has committed something by then.
_LOOKS = 2
# Whoever read it once may have a long turn or much else to read, and joining anew costs everybody time.
_LOOKS_IN_USE = 5
_ANSWER_S = 0.5

Where = tuple[str, int]


class Asking(Protocol):
    """A consumer of a group."""

    def assignment(self) -> list[ck.TopicPartition]: ...
    def list_topics(self, topic: str, /, *, timeout: float) -> Any: ...
    def committed(self, partitions: list[ck.TopicPartition], /, *, timeout: float) -> list[ck.TopicPartition]: ...
    def get_watermark_offsets(self, partition: ck.TopicPartition, /, *, timeout: float) -> tuple[int, int]: ...


class Unread:
    """Of one consumer, which belongs to the thread that calls this. has_record: whether there is a record at an offset
    or behind it, asked of a client that is not this one; what lies there may also be the end of a transaction."""

    def __init__(self, client: Asking, topics: Sequence[str], has_record: Callable[[Where, int], bool]) -> None:
        self._client, self._topics, self._has_record = client, topics, has_record
        self._next, self._seen = time.monotonic() + LOOK_S, dict[Where, tuple[int, int]]()  # offset, in how many looks
        self._taken = set[Where]()  # where this replica was handed something since the last look
        self._without = dict[Where, int]()  # ends that are known to have no record before them

    def took(self, where: Iterable[Where]) -> None:
        """This replica was handed something of these."""
        self._taken.update(where)

    def look(self, held: Collection[str] = ()) -> list[Where]:
        """(topic, partition) of what nobody reads, sorted; empty between two looks. held: topics of which this replica
        wants nothing now. Blocks for 0.5 s a question at most, and as long as has_record takes; where nobody answers,
        nothing is found."""
        if time.monotonic() < self._next:
            return []
        try:
            mine = {(p.topic, p.partition) for p in self._client.assignment()}
            now = self._committed(mine, held)
            soon = mine if not self._taken else set[Where]()  # who is handed something may get to the rest in time
            found = sorted(w for w, seen in now.items() if _late(*seen, w in soon) and self._waits(w, seen[0]))
        except (ck.KafkaException, TimedOut):  # a broker is away, or the group rebalances
            now, found = {}, []
        self._seen = {} if found else now
        self._taken.clear()
        self._next = time.monotonic() + LOOK_S
        return found

    def _committed(self, mine: Collection[Where], held: Collection[str]) -> dict[Where, tuple[int, int]]:
        """Where the group stands in what others should read, and in what is this replica's and handed nothing of: the
        offset, negative where nothing was committed, and in how many looks in a row it was the same."""
        there = {
            (topic, p)
            for topic in self._topics
            for p in self._client.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions
        }
        asked = {w for w in there if w not in mine or (w not in self._taken and w[0] not in held)}
        if not asked:
            return {}
        answers = self._client.committed([ck.TopicPartition(*w) for w in sorted(asked)], timeout=_ANSWER_S)
        # An error: nobody can say while a transaction that moves it is open.
        known = {(p.topic, p.partition): p.offset for p in answers if p.error is None}
        seen = {where: self._seen.get(where, (at, 0)) for where, at in known.items()}
        return {where: (at, seen[where][1] + 1 if seen[where][0] == at else 1) for where, at in known.items()}

    def _waits(self, where: Where, at: int) -> bool:
        """Whether a record is there, and not the end of a transaction alone."""
        end = self._client.get_watermark_offsets(ck.TopicPartition(*where), timeout=_ANSWER_S)[1]
        if end <= at or self._without.get(where) == end:
            return False
        if self._has_record(where, at):
            return True
        self._without[where] = end
        return False


def _late(at: int, looks: int, soon: bool) -> bool:
    return looks >= (_LOOKS if soon or at < 0 else _LOOKS_IN_USE)
