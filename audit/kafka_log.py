"""The topics of a pipeline as a stranger's plain consumer sees them, read_committed, in bounded memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import confluent_kafka as ck

from audit.cursor import Cursor
from audit.log import GROUPS, NAMES, CannotAudit, Name, Record, Span

POLL_S = 0.2
CALL_S = 5.0  # one question to the broker, asked again while budget_s lasts
_PASSING = (
    ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TIMED_OUT, ck.KafkaError._WAIT_COORD,
    ck.KafkaError.NOT_LEADER_FOR_PARTITION, ck.KafkaError.LEADER_NOT_AVAILABLE, ck.KafkaError.OFFSET_NOT_AVAILABLE,
    ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS, ck.KafkaError.NOT_COORDINATOR, ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
    ck.KafkaError.UNSTABLE_OFFSET_COMMIT, ck.KafkaError._RESOLVE, ck.KafkaError.UNKNOWN_LEADER_EPOCH,
    ck.KafkaError.FENCED_LEADER_EPOCH, ck.KafkaError.REQUEST_TIMED_OUT,
)  # fmt: skip


class KafkaLog:
    """kafka: librdkafka settings. budget_s: longest wait without any progress. on_read: told how many more records
    were read, now and then. Raises CannotAudit: no broker, no topics."""

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, *, budget_s: float = 60.0,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._kafka, self._prefix, self._budget_s, self._on_read = dict(kafka), prefix, budget_s, on_read
        self._complaint = ""
        self._cursors: dict[tuple[Name, int], Cursor] = {}
        self._spans: dict[Name, dict[int, Span]] = {}
        self._groups: dict[tuple[str, Name], dict[int, int]] = {}
        committed, all_written = self.open("audit"), self.open("audit-ends", **{"isolation.level": "read_uncommitted"})
        try:
            parts = self._partitions(committed)
            for service, names in GROUPS.items():
                for name in names:
                    self._groups[service, name] = self._committed(service, name, parts[name])
            low_settled = {n: {p: self._ends(all_written, n, p) for p in ps} for n, ps in parts.items()}
            self._wait_decided(committed, low_settled)
            # Asked again: a partition may have been added meanwhile, and outputs written by what we just waited for.
            for name in NAMES:
                self._spans[name] = {}
                for p in parts[name]:
                    low, settled = low_settled[name][p]
                    self._spans[name][p] = Span(low, settled, max(settled, self._ends(committed, name, p)[1]))
        finally:
            committed.close()
            all_written.close()

    def topic(self, name: Name) -> str:
        return f"{self._prefix}.{name}" if self._prefix else name

    def spans(self, name: Name) -> Mapping[int, Span]:
        return self._spans[name]

    def committed(self, group: str, name: Name) -> Mapping[int, int]:
        return self._groups[group, name]

    def read(self, name: Name, partition: int | None = None) -> Iterator[Record]:
        for p, span in self._spans[name].items():
            if partition in (None, p):
                yield from self.stream(name, p, span.low, span.end)

    def get(self, name: Name, partition: int, offset: int) -> Record | None:
        span = self._spans[name].get(partition)
        if span is None or not span.low <= offset < span.end:
            return None
        cursor = self._cursors.get((name, partition))
        if cursor is None:
            cursor = self._cursors[name, partition] = Cursor(functools.partial(self.stream, name, partition), span.end)
        return cursor.get(offset)

    def close(self) -> None:
        """Let go of all clients."""
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors.clear()

    def open(self, name: str, **more: Any) -> ck.Consumer:
        """A consumer in no group's way."""
        config = {
            "isolation.level": "read_committed", "queued.max.messages.kbytes": 16_384, "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 10, "log_level": 2, **self._kafka, "client.id": name, "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": "error", "allow.auto.create.topics": False,
            "max.poll.interval.ms": 86_400_000,
            "group.id": f"{name}-unused", "error_cb": self._note, **more,
        }  # fmt: skip
        try:
            return ck.Consumer(config)
        except ck.KafkaException as exc:
            raise CannotAudit(f"a KAFKA_* setting cannot be used: {exc.args[0].str()}") from exc

    def stream(self, name: Name, partition: int, start: int, end: int) -> Iterator[Record]:
        """Records [start, end) of one partition."""
        if start >= end:
            return
        topic, consumer, waited_s = self.topic(name), self.open("audit-read"), 0.0  # whoever reads may take his time
        try:
            consumer.assign([ck.TopicPartition(topic, partition, start)])
            while True:
                message = consumer.poll(POLL_S)
                found = [] if message is None else [message, *consumer.consume(999, 0)]
                waited_s = 0.0 if found else waited_s + POLL_S
                if waited_s > self._budget_s:
                    raise CannotAudit(f"{topic}[{partition}] could not be read to offset {end}: {self._why()}")
                self._on_read(len(found))
                for each in found:
                    error = each.error()
                    if error is not None and error.code() != ck.KafkaError._PARTITION_EOF:
                        self._passing(error, topic)
                        continue
                    at = each.offset() or 0
                    if at >= end:  # the end of a partition has the offset after its last record
                        return
                    if error is None:
                        yield _plain(each)
                        if at == end - 1:
                            return
        finally:
            consumer.close()

    def _partitions(self, consumer: ck.Consumer) -> dict[Name, list[int]]:
        meta = self._ask(lambda: consumer.list_topics(timeout=CALL_S)).topics
        missing = [self.topic(name) for name in NAMES if self.topic(name) not in meta]
        if missing:
            raise CannotAudit(f"no topic {', '.join(missing)}: is {self._prefix!r} the prefix (--prefix)?")
        return {name: sorted(meta[self.topic(name)].partitions) for name in NAMES}

    def _ends(self, consumer: ck.Consumer, name: Name, partition: int) -> tuple[int, int]:
        where = ck.TopicPartition(self.topic(name), partition)
        found: tuple[int, int] = self._ask(lambda: consumer.get_watermark_offsets(where, timeout=CALL_S))
        return found

    def _committed(self, service: str, name: Name, partitions: list[int]) -> dict[int, int]:
        group = f"{self._prefix}.{service}" if self._prefix else service
        consumer = self.open("audit-group", **{"group.id": group})  # asks, and never joins
        try:
            found = self._ask(lambda: _offsets(consumer, self.topic(name), partitions))
        finally:
            consumer.close()
        return {p.partition: p.offset for p in found if p.offset >= 0}

    def _wait_decided(self, committed: ck.Consumer, ends: Mapping[Name, Mapping[int, tuple[int, int]]]) -> None:
        """Until every transaction that was open when `ends` were taken is committed or aborted."""
        until = time.monotonic() + self._budget_s
        for name, partitions in ends.items():
            for partition, (_, end) in partitions.items():
                while self._ends(committed, name, partition)[1] < end:
                    if time.monotonic() > until:
                        raise CannotAudit(
                            f"{self.topic(name)}[{partition}] has had an open transaction for {self._budget_s:g} s: "
                            "readers of committed records cannot pass it before the broker ends it"
                        )
                    time.sleep(POLL_S)

    def _ask(self, call: Callable[[], Any]) -> Any:
        until = time.monotonic() + self._budget_s
        while True:
            try:
                return call()
            except ck.KafkaException as exc:
                error = exc.args[0]
                self._passing(error, "the broker")
                if time.monotonic() > until:
                    where = self._kafka.get("bootstrap.servers")
                    raise CannotAudit(f"no Kafka answers at {where}: {self._complaint or error.str()}") from exc

    def _passing(self, error: ck.KafkaError, what: str) -> None:
        if error.code() not in _PASSING and not error.retriable():
            raise CannotAudit(f"{what}: {error.str()}")
        self._note(error)

    def _note(self, error: ck.KafkaError) -> None:
        self._complaint = error.str()

    def _why(self) -> str:
        return self._complaint or f"nothing came for {self._budget_s:g} s"


def _offsets(consumer: ck.Consumer, topic: str, partitions: list[int]) -> list[ck.TopicPartition]:
    """A group's, all or none: of a partition whose transaction is undecided the broker says so in its place."""
    found = consumer.committed([ck.TopicPartition(topic, p) for p in partitions], timeout=CALL_S)
    for p in found:
        if p.error is not None:
            raise ck.KafkaException(p.error)
    return found


def _plain(message: ck.Message) -> Record:
    fields: Any = message  # the stubs allow for messages without a place, which a consumer never hands out
    headers = {k: v if isinstance(v, bytes) else b"" for k, v in fields.headers() or ()}
    at_ms = fields.timestamp()[1]
    return Record(fields.topic(), fields.partition(), fields.offset(), fields.key(), fields.value(), headers, at_ms)
