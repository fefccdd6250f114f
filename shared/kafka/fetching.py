"""Reading exactly the offsets that somebody named."""

from __future__ import annotations

from collections.abc import Mapping
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
}


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
        try:
            return self._fetch(wanted, deadline)
        except TimedOut as exc:
            if lost(self._kafka, self._consumer, wanted.topic):
                raise Fatal(f"the client that fetches {wanted.topic} has lost its brokers: {exc}") from exc
            self.close()
            self._consumer = self._open()  # what a client was not handed in time a fresh one may be
            raise

    def _fetch(self, wanted: OffsetRange, deadline: Deadline) -> list[Taken]:
        where = ck.TopicPartition(wanted.topic, wanted.partition, wanted.start)
        low, high = ends_of(self._consumer, where, deadline)
        if low > wanted.start or high < wanted.end:
            raise Refused(
                f"rows-gone: offsets {wanted.start}..{wanted.end} of {wanted.topic}[{wanted.partition}] asked, "
                f"{low}..{high} there"
            )
        self._consumer.assign([where])
        try:
            return self._read(wanted, deadline)
        finally:
            self._consumer.unassign()

    def _read(self, wanted: OffsetRange, deadline: Deadline) -> list[Taken]:
        """Until the last offset wanted, one beyond it, or the end: what lies at end - 1 may be a marker."""
        records: list[Taken] = []
        while not records or records[-1].offset < wanted.end - 1:
            message = self._consumer.poll(min(POLL_S, deadline.left_s()))
            if message is None:
                if deadline.passed():
                    raise TimedOut(f"could not read {wanted.topic}[{wanted.partition}] in {deadline.seconds:g} s")
                continue
            error = message.error()
            if error is not None:
                if error.code() == ck.KafkaError._PARTITION_EOF:
                    break
                if error.code() == ck.KafkaError._BAD_COMPRESSION:
                    raise Refused(f"rows-unreadable: {wanted.topic}[{wanted.partition}]: {error.str()}")
                refuse(error, message)
                continue
            record = plain(message)
            if record.offset >= wanted.end:
                break
            records.append(record)
        return records

    def close(self) -> None:
        """Let go of the client."""
        shut(self._consumer.close)
