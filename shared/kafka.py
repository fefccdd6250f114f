"""The only importer of confluent_kafka: consuming, transactions, whole-topic readers, offset ranges, topics.

The rules that the rest relies on, each explained where it is kept:
- everything reads read_committed, offsets are committed only inside transactions;
- a transaction opens when its output is ready, and one call owns begin, commit and abort;
- every blocking call draws on a Deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from shared.errors import Fatal, Fenced, OperatorError, Refused, Rewind, TimedOut
from shared.records import OffsetRange
from shared.topics import MAX_RECORD_BYTES, TOPICS, Name, topic_name

Headers = dict[str, bytes]
_log = logging.getLogger("kafka")
_FETCH_STEP_S = 0.2  # granularity at which loops look at their deadline
_CLIENT = {
    "retry.backoff.ms": 10,  # the default of 100 makes each transaction of a cold broker take 90-130 ms
    "reconnect.backoff.max.ms": 1_000,
    "socket.nagle.disable": True,
    "log.connection.close": False,
}


class Deadline:
    """One monotonic budget shared by all calls of an operation."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        return self.left_s() == 0.0


class Taken(NamedTuple):
    """A consumed record as plain data: a Message would hold its whole fetch buffer alive."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Out(NamedTuple):
    """A record to publish. partition None: by the key's hash (murmur2, as Java clients do)."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Mapping[str, str | bytes] = {}
    partition: int | None = None


def verdict(error: ck.KafkaError) -> type[Exception] | None:
    """None: call it again. Rewind: abort, seek back, carry on. Fenced, Fatal: this process must exit."""
    if error.code() in (
        ck.KafkaError._FENCED,
        ck.KafkaError.PRODUCER_FENCED,
        ck.KafkaError.FENCED_INSTANCE_ID,
    ):
        return Fenced
    if error.fatal():
        return Fatal
    if error.txn_requires_abort():
        return Rewind
    return None if error.retriable() else Fatal


def _insist(call: Callable[[float], None], deadline: Deadline) -> None:
    """Repeat a transactional call while its error is retriable and time is left."""
    while True:
        try:
            return call(max(0.1, deadline.left_s()))
        except ck.KafkaException as exc:
            error: ck.KafkaError = exc.args[0]
            kind = verdict(error)
            if kind is not None:
                raise kind(str(error)) from exc
            if deadline.passed():
                raise Fatal(f"no answer in time: {error}") from exc
            time.sleep(min(0.05, deadline.left_s()))


def _plain(message: ck.Message) -> Taken:
    headers = {k: (v if isinstance(v, bytes) else b"") for k, v in (message.headers() or ())}
    return Taken(
        message.topic(), message.partition(), message.offset(), message.timestamp()[1],
        message.key(), message.value(), headers,
    )  # fmt: skip


def client_config(kafka: Mapping[str, Any], client_id: str) -> dict[str, Any]:
    """Settings common to all clients, under what the operator gave."""
    return {**_CLIENT, **kafka, "client.id": client_id, "logger": _log}


def _open(kind: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    try:
        return kind(config)
    except ck.KafkaException as exc:
        raise OperatorError(f"a KAFKA_* setting is not understood by librdkafka: {exc.args[0].str()}") from exc


def _reader(kafka: Mapping[str, Any], client_id: str, **more: Any) -> ck.Consumer:
    config = {
        **client_config(kafka, client_id),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 10,  # default 1000: a full queue would idle the scorer for a second
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 65_536,  # bounds memory however far behind
        "fetch.message.max.bytes": MAX_RECORD_BYTES,
        "allow.auto.create.topics": False,
        **more,
    }
    return _open(ck.Consumer, config)


def _writer(kafka: Mapping[str, Any], client_id: str, **more: Any) -> ck.Producer:
    config = {
        **client_config(kafka, client_id),
        "enable.idempotence": True,
        "compression.type": "lz4",
        "partitioner": "murmur2_random",  # the same partition as a Java client would choose
        "message.max.bytes": MAX_RECORD_BYTES,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
        "linger.ms": 1,
        **more,
    }
    return _open(ck.Producer, config)


def _send(producer: ck.Producer, out: Out, deadline: Deadline) -> None:
    """Hand one record to the client; waits for room in its bounded queue."""
    headers = [(k, v.encode() if isinstance(v, str) else v) for k, v in out.headers.items()] or None
    more = {} if out.partition is None else {"partition": out.partition}
    while True:
        try:
            producer.produce(out.topic, out.value, out.key, headers=headers, **more)
            return
        except BufferError:
            if deadline.passed():
                raise TimedOut(f"no room to publish to {out.topic}: the broker does not keep up") from None
            producer.poll(0.1)
        except ck.KafkaException as exc:
            raise (verdict(exc.args[0]) or Fatal)(f"{out.topic}: {exc.args[0].str()}") from exc


class Session:
    """Consume, transform, produce, exactly once: one consumer of a group and one transactional producer.

    Static membership (the slot's name) lets a restarted replica take its partitions back at once; the
    transactional.id of the same name lets it end what its predecessor left open, and fences a zombie.
    """

    def __init__(
        self, kafka: Mapping[str, Any], *, name: str, group: str, topics: Sequence[str], budget_s: float,
        session_timeout_ms: int = 10_000, transaction_timeout_ms: int = 10_000, transactional_id: str | None = None,
    ) -> None:  # fmt: skip
        self._budget_s = budget_s
        self._group = group
        self._moved = False  # partitions were taken from us since take() began
        self.moves = 0  # how often that happened: what another replica published meanwhile is not known here
        self._taken: dict[tuple[str, int], int] = {}  # next offset per partition, since the last commit
        self._producer = _writer(
            kafka, name, **{
                "transactional.id": transactional_id or f"{group}-{name}",
                "transaction.timeout.ms": transaction_timeout_ms,
                # A record may not outlive its transaction in the client's queue.
                "delivery.timeout.ms": min(transaction_timeout_ms, 120_000),
            },
        )  # fmt: skip
        _insist(self._producer.init_transactions, Deadline(budget_s))  # fences the predecessor first
        self._consumer = _reader(
            kafka, name, **{
                "group.id": group,
                "group.instance.id": f"{group}-{name}",
                "session.timeout.ms": session_timeout_ms,
                "heartbeat.interval.ms": session_timeout_ms // 4,
                "max.poll.interval.ms": max(300_000, session_timeout_ms),
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.partition.eof": False,
            },
        )  # fmt: skip
        self._consumer.subscribe(list(topics), on_revoke=self._on_moved, on_lost=self._on_moved)

    def _on_moved(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self.moves += 1
        self._moved = True  # no transaction is open while polling, so there is nothing to flush

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Up to `most` records; waits `timeout_s` for the first only. Raises Rewind when partitions moved
        in the middle (what was taken may be another replica's by now); Fatal, Fenced."""
        self._moved = False
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first, *(self._consumer.consume(most - 1, 0) if most > 1 else ())]
        if self._moved:
            self.rewind()
            if messages:
                raise Rewind("partitions moved to another replica")
            return []
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(_plain(message))
            elif (kind := verdict(error)) in (Fenced, Fatal) and not _passing(error):
                raise (kind or Fatal)(str(error))
            else:
                _log.warning("consume: %s", error.str())
        for record in records:
            self._taken[record.topic, record.partition] = record.offset + 1
        return records

    def commit(self, outputs: Iterable[Out], *, before_commit: Callable[[], None] | None = None) -> None:
        """Publish outputs and the offsets of everything taken since the last commit, all or nothing.

        before_commit is called with the transaction open and everything produced. Raises Rewind (aborted
        and sought back: take again), Fatal, Fenced.
        """
        deadline = Deadline(self._budget_s)
        offsets = [ck.TopicPartition(t, p, o) for (t, p), o in self._taken.items()]
        self._producer.begin_transaction()
        try:
            for out in outputs:
                _send(self._producer, out, deadline)
            self._producer.poll(0)
            if offsets:
                group = self._consumer.consumer_group_metadata()
                _insist(lambda s: self._producer.send_offsets_to_transaction(offsets, group, s), deadline)
            if before_commit is not None:
                before_commit()
            _insist(self._producer.commit_transaction, deadline)
        except Fatal:
            raise  # fenced, or the outcome is unknown: the successor's init_transactions settles it
        except BaseException:
            _insist(self._producer.abort_transaction, Deadline(self._budget_s))
            self.rewind()
            raise
        self._taken.clear()

    def rewind(self) -> None:
        """Seek every assigned partition back to the group's committed offset."""
        self._taken.clear()
        assigned = self._consumer.assignment()
        if not assigned:
            return
        deadline = Deadline(self._budget_s)
        try:
            committed = self._consumer.committed(assigned, timeout=deadline.left_s())
            for p in committed:
                if p.offset < 0:
                    p.offset = self._consumer.get_watermark_offsets(p, timeout=deadline.left_s())[0]
            self._consumer.pause(assigned)  # a fetch under way must not deliver across the seek
            for p in committed:
                self._consumer.seek(p)
            self._consumer.resume(assigned)
        except ck.KafkaException as exc:
            raise Fatal(f"cannot seek back: {exc.args[0].str()}") from exc

    def assignment(self) -> list[tuple[str, int]]:
        """(topic, partition) that this replica holds now."""
        return [(p.topic, p.partition) for p in self._consumer.assignment()]

    def lag(self, topic: str | None = None) -> int:
        """Records not yet taken in the assigned partitions (of one topic), from what the client knows without asking."""
        total = 0
        assigned = [p for p in self._consumer.assignment() if topic in (None, p.topic)]
        for p in self._consumer.position(assigned):
            low, high = self._consumer.get_watermark_offsets(p, cached=True)
            if high >= 0:
                total += max(0, high - (p.offset if p.offset >= 0 else max(low, 0)))
        return total

    def close(self) -> None:
        """Leave the group. An idle transactional producer needs no goodbye."""
        self._consumer.close()


def _passing(error: ck.KafkaError) -> bool:
    """Errors that a consumer outlives: the client itself reconnects and asks again."""
    return error.code() in (
        ck.KafkaError._TRANSPORT,
        ck.KafkaError._ALL_BROKERS_DOWN,
        ck.KafkaError._TIMED_OUT,
        ck.KafkaError._RESOLVE,
        ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
        ck.KafkaError._MAX_POLL_EXCEEDED,
        ck.KafkaError._AUTO_OFFSET_RESET,
        ck.KafkaError._PARTITION_EOF,
        # A leader moves, or a topic is so new that its leader does not know it yet.
        ck.KafkaError.NOT_LEADER_FOR_PARTITION,
        ck.KafkaError.LEADER_NOT_AVAILABLE,
        ck.KafkaError.FENCED_LEADER_EPOCH,
        ck.KafkaError.UNKNOWN_LEADER_EPOCH,
        ck.KafkaError.OFFSET_NOT_AVAILABLE,
        ck.KafkaError.REPLICA_NOT_AVAILABLE,
        ck.KafkaError.REQUEST_TIMED_OUT,
        ck.KafkaError.NETWORK_EXCEPTION,
    ) or bool(error.retriable())


class Follower:
    """Reads whole topics, every partition, with no group: from the beginning, an offset, or a time (ms)."""

    def __init__(
        self, kafka: Mapping[str, Any], topics: Sequence[str], *, name: str = "follower", budget_s: float = 30.0,
        since_ms: int | None = None, from_end: bool = False, committed: bool = True,
    ) -> None:  # fmt: skip
        isolation = "read_committed" if committed else "read_uncommitted"
        self._consumer = _reader(kafka, name, **{"group.id": f"{name}-unused", "isolation.level": isolation})
        deadline = Deadline(budget_s)
        parts = [p for t in topics for p in _partitions(self._consumer, t, deadline)]
        if since_ms is not None:
            for p in parts:
                p.offset = since_ms
            parts = _ask(lambda s: self._consumer.offsets_for_times(parts, timeout=s), deadline)
        else:
            for p in parts:
                p.offset = ck.OFFSET_END if from_end else ck.OFFSET_BEGINNING
        self._waiting = {(p.topic, p.partition) for p in parts}
        self._reached: dict[tuple[str, int], int] = {}  # every offset below was read, or holds nothing for us
        self._kafka, self._topics = kafka, topics
        self._consumer.assign(parts)

    @property
    def caught_up(self) -> bool:
        """Every partition's end was seen since the start (it may have grown again since)."""
        return not self._waiting

    def take(self, timeout_s: float, most: int = 1_000) -> list[Taken]:
        """What is there, waiting at most timeout_s for the first. Raises Fatal."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        records = []
        for message in [first, *self._consumer.consume(most - 1, 0)]:
            error = message.error()
            if error is None:
                records.append(_plain(message))
                self._reached[records[-1].topic, records[-1].partition] = records[-1].offset + 1
            elif error.code() == ck.KafkaError._PARTITION_EOF:
                end = _plain(message)
                self._waiting.discard((end.topic, end.partition))
                self._reached[end.topic, end.partition] = end.offset
            elif verdict(error) in (Fenced, Fatal) and not _passing(error):
                raise Fatal(str(error))
        return records

    def until_end(self, budget_s: float) -> Iterator[Taken]:
        """Everything up to the end as it was seen first. Raises TimedOut."""
        deadline = Deadline(budget_s)
        while not self.caught_up:
            yield from self.take(min(_FETCH_STEP_S, deadline.left_s()))
            if deadline.passed() and not self.caught_up:
                raise TimedOut(f"could not read to the end within {budget_s:g} s")

    def catch_up(self, budget_s: float) -> Iterator[Taken]:
        """Everything published before this call, waiting for transactions that are undecided now: a commit is
        acknowledged before its records can be read. Raises TimedOut after budget_s without a record."""
        found = {t: watermarks(self._kafka, t, budget_s, committed=False) for t in self._topics}
        ends = {(t, p): high for t, partitions in found.items() for p, (_, high) in partitions.items()}
        deadline = Deadline(budget_s)
        while any(self._reached.get(where, 0) < end for where, end in ends.items()):
            if deadline.passed():
                raise TimedOut(f"could not read to the end: nothing came for {budget_s:g} s")
            if records := self.take(min(_FETCH_STEP_S, deadline.left_s())):
                deadline = Deadline(budget_s)
                yield from records

    def close(self) -> None:
        self._consumer.close()


def read_all(kafka: Mapping[str, Any], topic: str, budget_s: float = 60.0) -> list[Taken]:
    """All committed records of a topic as it stands now."""
    follower = Follower(kafka, [topic], name="read-all", budget_s=budget_s)
    try:
        return list(follower.until_end(budget_s))
    finally:
        follower.close()


class Fetcher:
    """Reads exactly the offsets that somebody named, read_committed. One client, kept between calls."""

    def __init__(self, kafka: Mapping[str, Any], name: str) -> None:
        # A fetch that is waiting at the end of one range holds up the next range on that broker: 105 ms to 6.
        self._consumer = _reader(kafka, name, **{"group.id": f"{name}-unused", "fetch.wait.max.ms": 1})

    def fetch(self, wanted: OffsetRange, deadline: Deadline) -> list[Taken]:
        """The records of [start, end). Raises Refused (rows-gone: retention took them), TimedOut."""
        where = ck.TopicPartition(wanted.topic, wanted.partition, wanted.start)
        low, high = _ask(lambda s: self._consumer.get_watermark_offsets(where, timeout=s), deadline)
        if low > wanted.start or high < wanted.end:
            raise Refused(
                f"rows-gone: offsets {wanted.start}..{wanted.end} of {wanted.topic}[{wanted.partition}] asked, "
                f"{low}..{high} there"
            )
        self._consumer.assign([where])
        try:
            records: list[Taken] = []
            while True:
                message = self._consumer.poll(min(_FETCH_STEP_S, deadline.left_s()))
                if message is None:
                    if deadline.passed():
                        raise TimedOut(f"could not read {wanted.topic}[{wanted.partition}] in time")
                    continue
                error = message.error()
                if error is not None:
                    if error.code() == ck.KafkaError._PARTITION_EOF:
                        return records
                    if not _passing(error):
                        raise Fatal(str(error))
                    continue
                if message.offset() >= wanted.end:
                    return records
                records.append(_plain(message))
                if message.offset() == wanted.end - 1:
                    return records
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        self._consumer.close()


class Writer:
    """Publishes outside of any consume loop. transactional_id given: each publish is one transaction."""

    def __init__(
        self, kafka: Mapping[str, Any], name: str, *, transactional_id: str | None = None, budget_s: float = 30.0,
        linger_ms: float = 5,
    ) -> None:  # fmt: skip
        self._budget_s = budget_s
        self._failed: list[str] = []
        self._transactional = transactional_id is not None
        more: dict[str, Any] = {"linger.ms": linger_ms}
        if transactional_id is not None:
            more |= {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": 10_000,
                "delivery.timeout.ms": 10_000,
            }
        self._producer = _writer(kafka, name, **more)
        if self._transactional:
            _insist(self._producer.init_transactions, Deadline(budget_s))

    def _delivered(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None and len(self._failed) < 100:
            self._failed.append(f"{message.topic()}: {error.str()}")

    def send(self, out: Out) -> None:
        """Queue one record (not transactional writers). Raises TimedOut when the broker does not keep up."""
        deadline = Deadline(self._budget_s)
        headers = [(k, v.encode() if isinstance(v, str) else v) for k, v in out.headers.items()] or None
        more = {} if out.partition is None else {"partition": out.partition}
        while True:
            try:
                self._producer.produce(
                    out.topic, out.value, out.key, headers=headers, on_delivery=self._delivered, **more
                )
                self._producer.poll(0)
                return
            except BufferError:
                if deadline.passed():
                    raise TimedOut(f"no room to publish to {out.topic}: the broker does not keep up") from None
                self._producer.poll(0.1)

    def flush(self) -> None:
        """Wait until all is acknowledged. Raises Fatal when something was not: left over is lost, not late."""
        left = self._producer.flush(self._budget_s)
        if left or self._failed:
            raise Fatal(f"{left} records not acknowledged in {self._budget_s:g} s; {'; '.join(self._failed[:3])}")

    def publish(self, outputs: Iterable[Out]) -> None:
        """All outputs: in one transaction where this writer has a transactional id, else sent and flushed."""
        if not self._transactional:
            for out in outputs:
                self.send(out)
            return self.flush()
        deadline = Deadline(self._budget_s)
        self._producer.begin_transaction()
        try:
            for out in outputs:
                _send(self._producer, out, deadline)
            _insist(self._producer.commit_transaction, deadline)
        except Fatal:
            raise
        except BaseException:
            _insist(self._producer.abort_transaction, Deadline(self._budget_s))
            raise
        return None


def _ask(call: Callable[[float], Any], deadline: Deadline) -> Any:
    """A metadata question, repeated while its error is passing and time is left. Raises Fatal."""
    while True:
        try:
            return call(max(0.1, min(5.0, deadline.left_s())))
        except ck.KafkaException as exc:
            error: ck.KafkaError = exc.args[0]
            if deadline.passed() or not _passing(error):
                raise Fatal(error.str()) from exc
            time.sleep(0.05)


def _partitions(consumer: ck.Consumer, topic: str, deadline: Deadline) -> list[ck.TopicPartition]:
    while True:
        meta = _ask(lambda s: consumer.list_topics(topic, timeout=s), deadline).topics[topic]
        if meta.error is None and meta.partitions:
            return [ck.TopicPartition(topic, p) for p in sorted(meta.partitions)]
        if deadline.passed():
            raise OperatorError(f"topic {topic} does not exist; `selfheal topics` creates the topics of a pipeline")
        time.sleep(0.1)


def watermarks(
    kafka: Mapping[str, Any], topic: str, budget_s: float = 30.0, *, committed: bool = True
) -> dict[int, tuple[int, int]]:
    """(low, high) offset of each partition; high is where undecided transactions begin, or with committed False
    the end of all that is written. Raises OperatorError when the topic does not exist."""
    deadline = Deadline(budget_s)
    isolation = "read_committed" if committed else "read_uncommitted"
    consumer = _reader(kafka, "watermarks", **{"group.id": "watermarks-unused", "isolation.level": isolation})
    try:
        found = {}
        for p in _partitions(consumer, topic, deadline):
            found[p.partition] = _ask(lambda s, p=p: consumer.get_watermark_offsets(p, timeout=s), deadline)
        return found
    finally:
        consumer.close()


def offsets_at(kafka: Mapping[str, Any], topic: str, at_ms: int, budget_s: float = 30.0) -> dict[int, int]:
    """Per partition the first offset at or after a time; the end offset where there is none."""
    deadline = Deadline(budget_s)
    consumer = _reader(kafka, "offsets-at", **{"group.id": "offsets-at-unused"})
    try:
        parts = _partitions(consumer, topic, deadline)
        for p in parts:
            p.offset = at_ms
        found = _ask(lambda s: consumer.offsets_for_times(parts, timeout=s), deadline)
        ends = {p.partition: p for p in parts}
        return {
            p.partition: p.offset if p.offset >= 0
            else _ask(lambda s, p=p: consumer.get_watermark_offsets(ends[p.partition], timeout=s), deadline)[1]
            for p in found
        }  # fmt: skip
    finally:
        consumer.close()


def create_topics(
    kafka: Mapping[str, Any], prefix: str = "", *, partitions: int = 6, budget_s: float = 60.0,
    names: Iterable[Name] | None = None,
) -> list[str]:  # fmt: skip
    """Create what is missing of a pipeline's topics; returns the names created. Raises OperatorError."""
    admin: AdminClient = _open(AdminClient, client_config(kafka, "topics"))
    deadline = Deadline(budget_s)
    wanted = [TOPICS[n] for n in (names or TOPICS)]
    new = [
        ck.admin.NewTopic(
            topic_name(t.name, prefix), num_partitions=partitions if t.partitioned else 1, config=t.config()
        )
        for t in wanted
    ]
    created = []
    for name, future in admin.create_topics(new, operation_timeout=deadline.left_s(), request_timeout=30).items():
        try:
            future.result(timeout=deadline.left_s())
            created.append(name)
        except ck.KafkaException as exc:
            if exc.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                raise OperatorError(f"cannot create topic {name}: {exc.args[0].str()}") from exc
    return created


def list_topics(kafka: Mapping[str, Any], budget_s: float = 15.0) -> dict[str, int]:
    """Partition count per topic. Raises OperatorError when no broker answers."""
    admin: AdminClient = _open(AdminClient, client_config(kafka, "topics"))
    try:
        return {n: len(t.partitions) for n, t in admin.list_topics(timeout=budget_s).topics.items()}
    except ck.KafkaException as exc:
        where = kafka.get("bootstrap.servers")
        raise OperatorError(f"no Kafka answers at {where} (KAFKA_BOOTSTRAP_SERVERS): {exc.args[0].str()}") from exc


class Member(NamedTuple):
    """A living member of a consumer group. client_id is the name its Session was given."""

    client_id: str
    host: str
    partitions: list[tuple[str, int]]


def group_members(kafka: Mapping[str, Any], group: str, budget_s: float = 15.0) -> list[Member]:
    """Who is in the group now; empty when it does not exist."""
    admin: AdminClient = _open(AdminClient, client_config(kafka, "groups"))
    try:
        described = admin.describe_consumer_groups([group], request_timeout=budget_s)[group].result(budget_s)
    except ck.KafkaException as exc:
        if exc.args[0].code() == ck.KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise Fatal(exc.args[0].str()) from exc
    return [
        Member(m.client_id, m.host, [(p.topic, p.partition) for p in m.assignment.topic_partitions])
        for m in described.members
    ]


def group_offsets(kafka: Mapping[str, Any], group: str, budget_s: float = 15.0) -> dict[tuple[str, int], int]:
    """Committed offset per (topic, partition) of a group."""
    admin: AdminClient = _open(AdminClient, client_config(kafka, "groups"))
    request = [ck.ConsumerGroupTopicPartitions(group)]
    try:
        found = admin.list_consumer_group_offsets(request, request_timeout=budget_s)[group].result(budget_s)
    except ck.KafkaException as exc:
        raise Fatal(exc.args[0].str()) from exc
    return {(p.topic, p.partition): p.offset for p in found.topic_partitions if p.offset >= 0}


@contextmanager
def closing(client: Session | Follower | Fetcher) -> Iterator[Any]:
    """Close on the way out; the leave request goes out even when the body failed."""
    try:
        yield client
    finally:
        client.close()
