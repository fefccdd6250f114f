"""Partitions that nobody reads: found by what the group has committed, and handed out by a rebalance."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from shared.errors import Fatal, Rewind
from shared.kafka import Out, Session, Writer, closing, grow_topic, unread
from shared.kafka.reading import has_record
from shared.kafka.unread import Unread
from shared.topics import group_name, topic_name

ROOT = Path(__file__).parents[1]
TOPIC = "demo.transactions"
NOTHING = -1001  # what the client says where a group has committed nothing


class Client:
    """Of a topic of four partitions: this replica reads the first, another the second."""

    def __init__(self) -> None:
        self.offsets = {0: 9, 1: 7, 2: NOTHING, 3: NOTHING}
        self.ends = {0: (0, 9), 1: (0, 7), 2: (0, 5), 3: (4, 4)}
        self.markers = {3: 4}  # nothing but ends of transactions from here on
        self.mine = [0]
        self.asked = 0
        self.away = False
        self.undecided = False

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, p) for p in self.mine]

    def list_topics(self, topic: str, /, *, timeout: float) -> Any:
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=range(4))})

    def committed(self, partitions: list[TopicPartition], /, *, timeout: float) -> list[Any]:
        error = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT) if self.undecided else None
        return [
            SimpleNamespace(topic=TOPIC, partition=p.partition, offset=self.offsets[p.partition], error=error)
            for p in partitions
        ]

    def get_watermark_offsets(self, partition: TopicPartition, /, *, timeout: float) -> tuple[int, int]:
        return self.ends[partition.partition]

    def has_record(self, where: tuple[str, int], offset: int) -> bool:
        self.asked += 1
        end = self.markers.get(where[1], self.ends[where[1]][1])
        return max(offset, self.ends[where[1]][0]) < end


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def looking(client: Client, monkeypatch: pytest.MonkeyPatch) -> Unread:
    monkeypatch.setattr(unread, "LOOK_S", 0.0)
    return Unread(client, [TOPIC], client.has_record)


def test_what_has_records_and_no_offset_twice_is_read_by_nobody(looking: Unread) -> None:
    assert looking.look() == []
    assert looking.look() == [(TOPIC, 2)]
    assert looking.look() == []  # somebody needs time to begin


def test_a_replica_that_begins_between_two_looks_is_somebody(client: Client, looking: Unread) -> None:
    assert looking.look() == []
    client.offsets[2] = 1
    assert looking.look() == []
    client.offsets[2] = 5
    assert [looking.look() for _ in range(3)] == [[], [], []]


def test_what_stands_still_before_a_record_is_read_by_nobody_though_it_once_was(
    client: Client, looking: Unread
) -> None:
    client.mine, client.offsets[2] = [0, 2, 3], 5
    client.ends[1] = (0, 9)
    assert [looking.look() for _ in range(4)] == [[]] * 4
    client.offsets[1] = 8
    assert [looking.look() for _ in range(5)] == [[], [], [], [], [(TOPIC, 1)]]  # it may have a long turn


def test_the_end_of_a_transaction_is_no_record_and_is_looked_into_once(client: Client, looking: Unread) -> None:
    client.mine, client.offsets[2] = [0, 2, 3], 5
    client.ends[1], client.markers[1] = (0, 8), 7
    assert [looking.look() for _ in range(7)] == [[]] * 7
    assert client.asked == 2  # of 1 and 3
    client.ends[1] = (0, 9)
    assert [looking.look() for _ in range(2)] == [[]] * 2
    assert client.asked == 3


def test_what_is_mine_is_unread_when_i_am_handed_nothing(client: Client, looking: Unread) -> None:
    client.mine = [0, 2]
    client.ends[0] = (0, 11)
    assert looking.look() == []
    looking.took([(TOPIC, 0), (TOPIC, 2)])
    assert [looking.look() for _ in range(2)] == [[], []]
    assert looking.look() == [(TOPIC, 0), (TOPIC, 2)]
    client.offsets[2] = 1
    for _ in range(4):  # handed something of another: its turn may come
        looking.took([(TOPIC, 0)])
        assert looking.look() == []
    looking.took([(TOPIC, 0)])
    assert looking.look() == [(TOPIC, 2)]
    assert [looking.look([TOPIC]) for _ in range(3)] == [[], [], []]  # I want nothing of it now


def test_no_answer_says_nothing(client: Client, looking: Unread) -> None:
    assert looking.look() == []
    client.away = True
    assert looking.look() == []
    client.away = False
    assert looking.look() == []
    assert looking.look() == [(TOPIC, 2)]


def test_an_offset_that_nobody_can_tell_just_now_is_no_missing_one(client: Client, looking: Unread) -> None:
    client.undecided = True
    assert [looking.look() for _ in range(3)] == [[], [], []]
    client.undecided = False
    assert looking.look() == []
    assert looking.look() == [(TOPIC, 2)]


def test_it_looks_now_and_then(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "LOOK_S", 3_600.0)
    client.away = True
    assert Unread(client, [TOPIC], client.has_record).look() == []  # asked nobody: there would have been an error


# In another process: a replica that says what it holds whenever that changes, until it is killed.
HOLDS = """
import json, sys
from shared.kafka import Session
kafka, prefix, name = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
session = Session(kafka, name=name, group=f"{prefix}.copier", topics=[f"{prefix}.transactions"], budget_s=10.0)
before = None
while True:
    session.take(1, 0.05)
    held = sorted(p for _, p in session.assignment())
    if held != before:
        print(len(held), flush=True)
        before = held
"""


@contextmanager
def killed_in_the_end(kafka: dict[str, str], prefix: str, name: str) -> Iterator[list[int]]:
    """A replica: how many partitions it holds, the newest last."""
    command, held = [sys.executable, "-c", HOLDS, json.dumps(kafka), prefix, name], list[int]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        reading = threading.Thread(target=lambda out: held.extend(int(line) for line in out), args=(child.stdout,))
        reading.start()
        try:
            yield held
        finally:
            child.kill()
            reading.join()


@pytest.mark.broker
def test_new_partitions_are_read_though_no_replica_saw_the_topic_grow(
    kafka: dict[str, str], prefix: str, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, seen, told = topic_name("transactions", prefix), set[int](), list[str]()
    with killed_in_the_end(kafka, prefix, "s0") as s0, killed_in_the_end(kafka, prefix, "s1") as s1:
        wait_for(lambda: (s0[-1:], s1[-1:]) == ([1], [1]), "each holds a partition", 60.0)
    grow_topic(kafka, topic, 4)
    with closing(Writer(kafka, "feed")) as writer:
        writer.publish(Out(topic, b"k", b"v", {}, partition=p) for p in range(4))
    monkeypatch.setattr(unread, "LOOK_S", 1.0)
    with ExitStack() as stack:
        # Each sees four partitions from the beginning, so that nothing changes before its eyes.
        replicas = [
            stack.enter_context(
                closing(Session(kafka, name=name, group=group_name("copier", prefix), topics=[topic], budget_s=10.0))
            )
            for name in ("s0", "s1")
        ]

        def all_read() -> bool:
            for replica in replicas:
                try:
                    taken = replica.take(10, 0.05)
                    replica.commit([])
                except Rewind as exc:
                    told.append(str(exc))
                else:
                    seen.update(r.partition for r in taken)
            return seen == {0, 1, 2, 3}

        wait_for(all_read, "all four are read", 60.0)
    assert any(f"no replica reads {topic}[2], {topic}[3]" in text for text in told)


@pytest.fixture
def session(kafka: dict[str, str], prefix: str) -> Iterator[Session]:
    """Of transactions and predictions."""
    topics = [topic_name("transactions", prefix), topic_name("predictions", prefix)]
    with closing(Session(kafka, name="s0", group=group_name("copier", prefix), topics=topics, budget_s=10.0)) as one:
        yield one


def _read_all(session: Session, topics: list[str], wait_for: Callable[..., None], patch: pytest.MonkeyPatch) -> None:
    """Have a record of each topic read, then look each half second: until then it may need longer to begin."""
    left = set(topics)

    def all_read() -> bool:
        left.difference_update(r.topic for r in session.take(10, 0.05))
        session.commit([])
        return not left

    wait_for(all_read, "everything is read", 30.0)
    patch.setattr(unread, "LOOK_S", 0.5)
    patch.setattr(session._unread, "_next", 0.0)


@pytest.mark.broker
def test_a_client_that_is_handed_nothing_joins_anew_and_then_gives_up(
    kafka: dict[str, str], prefix: str, session: Session, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, told = topic_name("transactions", prefix), list[str]()
    with closing(Writer(kafka, "feed")) as writer:
        writer.publish([Out(topic, b"k", b"v", {}, partition=0)])
        _read_all(session, [topic], wait_for, monkeypatch)

        def deaf() -> bool:
            session._consumer.pause(session._consumer.assignment())
            try:
                return bool(session.take(10, 0.05))
            except (Rewind, Fatal) as exc:
                told.append(f"{type(exc).__name__}: {exc}")
            return len(told) == 2

        writer.publish([Out(topic, b"k", b"v", {}, partition=0)])
        wait_for(deaf, "it gives up", 30.0)
    assert told[0] == f"Rewind: no replica reads {topic}[0]: joined the group anew"
    assert told[1].startswith(f"Fatal: this client is handed nothing of {topic}[0]")


@pytest.mark.broker
def test_joining_anew_begins_where_the_group_stands(
    kafka: dict[str, str], prefix: str, session: Session, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, seen, told = topic_name("transactions", prefix), list[bytes | None](), list[str]()
    with closing(Writer(kafka, "feed")) as writer:
        writer.publish([Out(topic, b"k", b"v", {}, partition=0)])
        _read_all(session, [topic], wait_for, monkeypatch)
        writer.publish([Out(topic, b"k", value, {}, partition=0) for value in (b"1", b"2")])
    # As if what was fetched had been lost on the way to us: the client stands behind it.
    wait_for(lambda: len(session._consumer.consume(2, 0.5)) == 2, "both are lost", 10.0)

    def read() -> bool:
        try:
            seen.extend(r.value for r in session.take(10, 0.05))
            session.commit([])
        except Rewind as exc:
            told.append(str(exc))
        return len(seen) == 2

    wait_for(read, "both are read", 30.0)
    assert seen == [b"1", b"2"]
    assert told[0] == f"no replica reads {topic}[0]: joined the group anew"


@pytest.mark.broker
def test_a_quiet_group_stays_as_it_is(
    kafka: dict[str, str], prefix: str, session: Session, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = [topic_name("transactions", prefix), topic_name("predictions", prefix)]
    with closing(Writer(kafka, "feed", transactional_id=f"{prefix}-feed")) as writer:
        writer.publish(Out(topic, b"k", b"v", {}, partition=0) for topic in topics)
        _read_all(session, topics, wait_for, monkeypatch)
        moves, end = session.moves, time.monotonic() + 3.0
        while time.monotonic() < end:  # six looks, with the end of a transaction behind each record
            assert session.take(10, 0.05) == []
        session.hold([topics[0]])
        writer.publish([Out(topics[0], b"k", b"v", {}, partition=0)])
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            assert session.take(10, 0.05) == []
    assert session.moves == moves
    assert has_record(kafka, topics[0], 0, 0)
    assert not has_record(kafka, topics[1], 0, 1)
    assert not has_record(kafka, topics[0], 1, -1001)
