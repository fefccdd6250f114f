"""Reading exactly the offsets that somebody named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import confluent_kafka as ck

from shared.errors import Fatal, Refused, TimedOut
from shared.kafka.client import Complaints, Deadline, refuse, shut
from shared.kafka.plain import Taken, plain
from shared.kafka.pulse import lost
from shared.kafka.reading import POLL_S, ends_of, open_reader
from shared.records import OffsetRange

_FETCH = {
    # What lies behind a range is read for nothing: with 4 MiB a request and 64 MiB ahead, one record moved 20 MB.
    "fetch.message.max.bytes": 128 * 1024,
    "queued.max.messages.kbytes": 1_024,
    "fetch.wait.max.ms": 1,  # one that waits at the end of a range holds up the next range on that broker: 105 ms to 6
    "auto.offset.reset": "error",  # an offset that is not there is the caller's to hear of
}
Where = tuple[str, int]  # topic, partition
_GONE = (ck.KafkaError._AUTO_OFFSET_RESET, ck.KafkaError.OFFSET_OUT_OF_RANGE)


class Fetcher:
    """Fetches offset ranges, read_committed. One client, kept between calls that are answered in time."""

    def __init__(self, kafka: Mapping[str, Any], name: str) -> None:
        self._kafka, self._name = kafka, name
        self._consumer = self._open()

    def _open(self) -> ck.Consumer:
        return open_reader(self._kafka, self._name, Complaints(), **_FETCH)

    def fetch(self, wanted: OffsetRange, deadline: Deadline) -> list[Taken]:
        """The records of [start, end); fewer than end - start where markers or aborted records lie between.

        Raises Refused (rows-gone: retention took them, or they never were; rows-unreadable: the client cannot unpack
        them), TimedOut, Fatal.
        """
        return next((records for _, records in self.fetch_all([wanted], deadline)), [])

    def fetch_all(self, wanted: Sequence[OffsetRange], deadline: Deadline) -> Iterator[tuple[OffsetRange, list[Taken]]]:
        """Each range that is not empty with its records, as fetch: the first of every partition, read together, then
        the second of each, and so on. Raises as fetch, for the first range that cannot be had."""
        left = [span for span in wanted if span.start < span.end]
        while left:
            turn: dict[Where, OffsetRange] = {}
            for span in left:
                turn.setdefault((span.topic, span.partition), span)
            left = [span for span in left if turn[span.topic, span.partition] is not span]
            yield from self._together(turn, deadline)

    def _together(self, turn: Mapping[Where, OffsetRange], deadline: Deadline) -> list[tuple[OffsetRange, list[Taken]]]:
        found: dict[Where, list[Taken]] = {where: [] for where in turn}
        try:
            self._consumer.assign([ck.TopicPartition(*where, span.start) for where, span in turn.items()])
            try:
                self._read(dict(turn), found, deadline)
            finally:
                self._consumer.unassign()
        except TimedOut as exc:
            topic = next(iter(turn))[0]
            if lost(self._kafka, self._consumer, topic):
                raise Fatal(f"the client that fetches {topic} has lost its brokers: {exc}") from exc
            self.close()
            self._consumer = self._open()  # what a client was not handed in time a fresh one may be
            raise
        return [(span, found[where]) for where, span in turn.items()]

    def _read(self, left: dict[Where, OffsetRange], found: Mapping[Where, list[Taken]], deadline: Deadline) -> None:
        """Each until its last offset, one beyond it, or the end: what lies at end - 1 may be a marker."""
        while left:
            message = self._consumer.poll(min(POLL_S, deadline.left_s()))
            if message is None:
                if deadline.passed():
                    topic, partition = next(iter(left))
                    raise TimedOut(f"could not read {topic}[{partition}] in {deadline.seconds:g} s")
                continue
            error, where = message.error(), (str(message.topic()), -1 if (p := message.partition()) is None else p)
            if where not in left:
                if error is not None and where[1] < 0:  # not of what was read ahead of a range that is done
                    refuse(error, message)
                continue
            span = left[where]
            if error is None:
                record = plain(message)
                if record.offset < span.end:
                    found[where].append(record)
                over = record.offset >= span.end - 1
            else:
                over = self._over(error, message, span, deadline)
            if over:
                del left[where]
                if left:  # nothing more of it is read beside the others
                    self._consumer.incremental_unassign([ck.TopicPartition(*where)])

    def _over(self, error: ck.KafkaError, message: ck.Message, span: OffsetRange, deadline: Deadline) -> bool:
        """Whether this is the range's end. Raises Refused: nothing of it can be had any more."""
        at = f"{span.topic}[{span.partition}]"
        if error.code() == ck.KafkaError._BAD_COMPRESSION:
            raise Refused(f"rows-unreadable: {at}: {error.str()}")
        ended = error.code() == ck.KafkaError._PARTITION_EOF
        if ended and (message.offset() or 0) >= span.end:
            return True
        if not ended and error.code() not in _GONE:
            refuse(error, message)
            return False
        low, high = ends_of(self._consumer, ck.TopicPartition(span.topic, span.partition), deadline)
        if low > span.start or high < span.end:
            raise Refused(f"rows-gone: offsets {span.start}..{span.end} of {at} asked, {low}..{high} there")
        if not ended:  # it is there for the one who asks where it begins, not for the one who fetches
            raise TimedOut(f"{at} has {low}..{high} and does not hand out {span.start}")
        return False  # the end has moved since

    def close(self) -> None:
        """Let go of the client."""
        shut(self._consumer.close)
