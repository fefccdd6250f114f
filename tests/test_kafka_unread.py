"""Partitions that nobody reads: found by what the group has committed, and handed out by a rebalance."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from shared.errors import Rewind
from shared.kafka import Out, Session, Writer, closing, grow_topic, unread
from shared.kafka.unread import Unread
from shared.topics import group_name, topic_name

ROOT = Path(__file__).parents[1]
TOPIC = "demo.transactions"
NOTHING = -1001  # what the client says where a group has committed nothing


class Client:
    """Of a topic of four partitions: this replica reads the first, another the second."""

    def __init__(self) -> None:
        self.offsets = {1: 7, 2: NOTHING, 3: NOTHING}
        self.ends = {2: (0, 5), 3: (4, 4)}
        self.mine = [0]
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


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def looking(client: Client, monkeypatch: pytest.MonkeyPatch) -> Unread:
    monkeypatch.setattr(unread, "LOOK_S", 0.0)
    return Unread(client, [TOPIC])


def test_what_has_records_and_no_offset_twice_is_read_by_nobody(looking: Unread) -> None:
    assert looking.look() == []
    assert looking.look() == [(TOPIC, 2)]
    assert looking.look() == []  # somebody needs time to begin


def test_a_replica_that_begins_between_two_looks_is_somebody(client: Client, looking: Unread) -> None:
    assert looking.look() == []
    client.offsets[2] = 1
    assert [looking.look() for _ in range(3)] == [[], [], []]


def test_what_is_mine_has_a_reader_before_i_have_committed(client: Client, looking: Unread) -> None:
    client.mine = [0, 2]
    assert [looking.look() for _ in range(3)] == [[], [], []]


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
    assert Unread(client, [TOPIC]).look() == []  # asked nobody: there would have been an error


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
