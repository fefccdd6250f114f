"""What every reader rests on: its settings, and where partitions begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import confluent_kafka as ck

from shared.errors import OperatorError, TimedOut
from shared.kafka.client import Complaints, Deadline, ask, client_config, first_contact, open_client

POLL_S = 0.2  # how often loops look at their deadline
_DEFAULTS = {
    "fetch.queue.backoff.ms": 10,  # default 1000: a full queue would idle the scorer for a second
    "fetch.wait.max.ms": 100,  # how late the end of a quiet partition is noticed
    "fetch.message.max.bytes": 1024 * 1024,  # of each partition; a larger batch comes alone
    # Bounds memory however far behind: 1,500 messages of 100 rows; half as much costs speed.
    "queued.max.messages.kbytes": 16_384,
}


def open_reader(kafka: Mapping[str, Any], client_id: str, complaints: Complaints, **fixed: Any) -> ck.Consumer:
    """A consumer that sees what is committed, and commits nothing by itself."""
    config = {
        **_DEFAULTS,
        **client_config(kafka, client_id),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "group.id": f"{client_id}-unused",  # the client wants one; without subscribe or commit nobody sees it
        "error_cb": complaints,
        **fixed,
    }
    return open_client(ck.Consumer, config)


def partitions_of(consumer: ck.Consumer, topic: str, deadline: Deadline) -> list[ck.TopicPartition]:
    """All partitions of a topic. Raises OperatorError when there is no such topic, TimedOut."""

    def look(timeout_s: float) -> list[ck.TopicPartition]:
        meta = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
        if meta.error is not None:
            raise ck.KafkaException(meta.error)
        return [ck.TopicPartition(topic, p) for p in sorted(meta.partitions)]

    # A topic just created may be unknown to the broker asked, for a moment; hence not at once, and not for long.
    brief = Deadline(min(2.0, deadline.left_s()))
    while True:
        try:
            return ask(look, brief, f"Read on topic {topic}")
        except TimedOut as exc:
            cause = exc.__cause__
            unknown = isinstance(cause, ck.KafkaException) and cause.args[0].code() in (
                ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
                ck.KafkaError._UNKNOWN_TOPIC,
            )
            if unknown:
                raise OperatorError(
                    f"topic {topic} does not exist; `selfheal topics` creates the topics of a pipeline"
                ) from exc
            if deadline.passed():
                raise
            brief = deadline


def ends_of(consumer: ck.Consumer, where: ck.TopicPartition, deadline: Deadline) -> tuple[int, int]:
    """(low, high) offset of a partition as this consumer sees it; read_committed ends before open transactions."""
    what = f"Read on topic {where.topic}"
    return ask(lambda s: consumer.get_watermark_offsets(where, timeout=s), deadline, what)


def first_at(
    consumer: ck.Consumer, parts: list[ck.TopicPartition], at_ms: int, deadline: Deadline
) -> list[ck.TopicPartition]:
    """The first offset at or after a time, partition by partition; the end where there is none."""
    asked = [ck.TopicPartition(p.topic, p.partition, at_ms) for p in parts]
    found = ask(lambda s: consumer.offsets_for_times(asked, timeout=s), deadline)
    for p in found:
        if p.offset < 0:
            p.offset = ends_of(consumer, p, deadline)[1]
    return found


def watermarks(
    kafka: Mapping[str, Any], topic: str, budget_s: float = 30.0, *, committed: bool = True
) -> dict[int, tuple[int, int]]:
    """(low, high) offset of each partition; high is where undecided transactions begin, or with committed False
    the end of all that is written. Raises OperatorError: no broker answers, no such topic."""
    isolation = "read_committed" if committed else "read_uncommitted"
    with _asking(kafka, "watermarks", **{"isolation.level": isolation}) as consumer:
        deadline = Deadline(budget_s)
        return {p.partition: ends_of(consumer, p, deadline) for p in partitions_of(consumer, topic, deadline)}


def offsets_at(kafka: Mapping[str, Any], topic: str, at_ms: int, budget_s: float = 30.0) -> dict[int, int]:
    """Per partition the first offset at or after a time (Unix epoch ms); the end offset where there is none.
    Raises OperatorError: no broker answers, no such topic."""
    with _asking(kafka, "offsets-at") as consumer:
        deadline = Deadline(budget_s)
        parts = partitions_of(consumer, topic, deadline)
        return {p.partition: p.offset for p in first_at(consumer, parts, at_ms, deadline)}


def has_record(kafka: Mapping[str, Any], topic: str, partition: int, offset: int, budget_s: float = 5.0) -> bool:
    """Whether there is a committed record at this offset (negative: anywhere) or behind it. Raises TimedOut."""
    deadline = Deadline(budget_s)
    begin = offset if offset >= 0 else ck.OFFSET_BEGINNING
    with closing(open_reader(kafka, "has-record", Complaints(), **{"fetch.message.max.bytes": 1_024})) as consumer:
        consumer.assign([ck.TopicPartition(topic, partition, begin)])
        while not deadline.passed():
            message = consumer.poll(min(POLL_S, deadline.left_s()))
            error = None if message is None else message.error()
            if error is not None and error.code() == ck.KafkaError._PARTITION_EOF:
                return False
            if message is not None and (error is None or error.code() == ck.KafkaError._BAD_COMPRESSION):
                return True
    raise TimedOut(f"could not read {topic}[{partition}] in {budget_s:g} s")


@contextmanager
def _asking(kafka: Mapping[str, Any], name: str, **fixed: Any) -> Iterator[ck.Consumer]:
    complaints = Complaints()
    with closing(open_reader(kafka, name, complaints, **fixed)) as consumer, first_contact(kafka, consumer, complaints):
        yield consumer


class Closable(Protocol):
    """A client."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@contextmanager
def closing(client: C) -> Iterator[C]:
    """Close on the way out, also when the body failed."""
    try:
        yield client
    finally:
        client.close()
