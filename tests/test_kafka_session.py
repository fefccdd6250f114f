"""Exactly once, on a real broker: what is committed together, what is never seen, and who takes over from whom."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition

from shared.errors import Fatal, Fenced, Refused, Rewind
from shared.kafka import Out, Session, Taken, Writer, group_members, group_offsets, watermarks
from shared.topics import MAX_RECORD_BYTES, group_name, topic_name

pytestmark = pytest.mark.broker
ROOT = Path(__file__).parents[1]
BUDGET_S = 10.0
# In another process: takes, opens a transaction, puts everything into it but the commit, and waits to be killed.
CRASHES = """
import json, sys, time
from shared.kafka import Out, Session
kafka, prefix = json.loads(sys.argv[1]), sys.argv[2]
session = Session(kafka, name="s0", group=f"{prefix}.copier", topics=[f"{prefix}.transactions"], budget_s=10.0)
taken = []
while len(taken) < 5:
    taken += session.take(5 - len(taken), 0.2)
def hang():
    print("open", flush=True)
    time.sleep(60)
session.commit([Out(f"{prefix}.predictions", r.key, r.value) for r in taken], before_commit=hang)
"""


@pytest.fixture
def open_session(kafka, prefix) -> Iterator[Callable[..., Session]]:
    """open_session("s0"): a replica of one group that reads transactions."""
    opened = []

    def make(name: str = "s0", **more: object) -> Session:
        settings = {"group": group_name("copier", prefix), "topics": [topic_name("transactions", prefix)]} | more
        opened.append(Session(kafka, name=name, budget_s=BUDGET_S, **settings))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def feed(kafka, prefix) -> Callable[[int], set[bytes]]:
    """feed(n): n records onto transactions from a plain client, some to each partition; their values."""

    def put(n: int) -> set[bytes]:
        producer = Producer({**kafka, "linger.ms": 0})
        for i in range(n):
            producer.produce(topic_name("transactions", prefix), str(i).encode(), str(i), partition=i % 2)
        assert producer.flush(10) == 0
        return {str(i).encode() for i in range(n)}

    return put


@pytest.fixture
def copies(prefix) -> Callable[[list[Taken]], list[Out]]:
    """What a replica publishes for what it took."""
    return lambda records: [Out(topic_name("predictions", prefix), r.key, r.value) for r in records]


def committed(kafka: dict[str, str], prefix: str) -> dict[tuple[str, int], int]:
    return group_offsets(kafka, group_name("copier", prefix), [topic_name("transactions", prefix)])


def take(session: Session, n: int, wait_for) -> list[Taken]:
    """n records, in as many calls as it needs."""
    taken: list[Taken] = []

    def enough() -> bool:
        taken.extend(session.take(n - len(taken), 0.2))
        return len(taken) >= n

    wait_for(enough, f"{n} records")
    return taken


def values(records) -> list[bytes]:
    return [r.value if isinstance(r, Taken) else r.value() for r in records]


def test_outputs_and_offsets_commit_together(kafka, prefix, open_session, feed, copies, read_topic, wait_for):
    fed = feed(10)
    session = open_session()
    records = take(session, 10, wait_for)
    assert committed(kafka, prefix) == {}
    session.commit(copies(records))
    assert set(values(read_topic("predictions"))) == fed
    topic = topic_name("transactions", prefix)
    assert committed(kafka, prefix) == {
        (topic, 0): 5,
        (topic, 1): 5,
    }


def test_an_aborted_batch_is_never_seen_and_comes_again(open_session, feed, copies, read_topic, wait_for):
    fed = feed(6)
    session = open_session()
    records = take(session, 6, wait_for)

    def fail() -> None:
        raise ZeroDivisionError  # a bug of the service, with everything produced

    with pytest.raises(ZeroDivisionError):
        session.commit(copies(records), before_commit=fail)
    assert read_topic("predictions") == []
    again = take(session, 6, wait_for)
    assert set(values(again)) == fed
    session.commit(copies(again))
    assert sorted(values(read_topic("predictions"))) == sorted(fed)


def test_a_rewind_right_after_the_assignment(open_session, feed, wait_for):
    fed = feed(4)
    session = open_session()
    wait_for(lambda: session.take(1, 0.05) or session.assignment(), "an assignment")
    session.rewind()
    assert set(values(take(session, 4, wait_for))) == fed


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_given_back_comes_again_and_in_order(kafka, prefix, open_session, wait_for, seed):
    topic, n, rng = topic_name("transactions", prefix), 1_500, random.Random(seed)
    producer = Producer(kafka)
    for i in range(2 * n):  # more than a client reads ahead: fetches are under way at each seek
        producer.produce(topic, rng.randbytes(20_000), partition=i % 2)
        producer.poll(0)
    assert producer.flush(30) == 0
    session = open_session()
    at, done = Counter[int](), Counter[int]()

    def turn() -> bool:
        nonlocal at, done
        for record in (taken := session.take(rng.choice([1, 50, 1_000]), 0.5)):
            assert record.offset == at[record.partition]
            at[record.partition] += 1
        match rng.choice(["rewind", "put back", "commit", "go on"]):
            case "rewind":
                session.rewind()
                at = Counter(done)
            case "put back":
                back = taken[len(taken) // 2 :]
                session.put_back(back)
                at.subtract(record.partition for record in back)
            case "commit":
                session.commit([])
                done = Counter(at)
        return done == Counter({0: n, 1: n})

    wait_for(turn, "all of them")


def test_what_is_held_stays_so_over_a_rewind(open_session, prefix, feed, wait_for):
    session = open_session()
    feed(10)
    take(session, 4, wait_for)
    session.hold([topic_name("transactions", prefix)])
    session.rewind()
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        assert session.take(10, 0.1) == []
    session.hold([])
    assert len(take(session, 10, wait_for)) == 10


def test_takes_add_up_until_they_are_committed(kafka, prefix, open_session, feed, wait_for):
    feed(6)
    session = open_session()
    take(session, 2, wait_for)
    take(session, 4, wait_for)
    session.commit([])
    assert sum(committed(kafka, prefix).values()) == 6


def test_killed_between_produce_and_commit(kafka, prefix, open_session, feed, copies, read_topic, wait_for):
    fed = feed(20)
    arguments = [json.dumps(kafka), prefix]
    child = subprocess.Popen(
        [sys.executable, "-c", CRASHES, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        child.send_signal(signal.SIGKILL)
    # Far below both time-outs: the successor of the same name neither waits for the session nor the transaction.
    session = open_session("s0", session_timeout_ms=60_000, transaction_timeout_ms=60_000)
    records = take(session, 20, lambda condition, what: wait_for(condition, what, 5.0))
    session.commit(copies(records))
    assert sorted(values(read_topic("predictions"))) == sorted(fed)


def test_a_newer_session_of_the_same_name_fences_this_one(open_session, feed, copies, read_topic, wait_for):
    feed(4)
    older = open_session("s0")
    records = take(older, 4, wait_for)
    newer = open_session("s0")
    with pytest.raises(Fenced):
        older.commit(copies(records))
    newer.commit(copies(take(newer, 4, wait_for)))
    assert len(read_topic("predictions")) == 4


def test_a_transaction_that_outlived_its_time_is_not_taken_for_a_newer_process(
    kafka, prefix, open_session, feed, copies, read_topic, wait_for
):
    """A stopped process, a laptop that slept: it must end so that it is started again, not as one that was replaced."""
    feed(1)
    session = open_session(transaction_timeout_ms=2_000)
    records = take(session, 1, wait_for)
    topic = topic_name("predictions", prefix)
    began = time.monotonic()

    def outlive() -> None:
        def ended() -> bool:
            written = watermarks(kafka, topic, committed=False)
            return any(high for _, high in written.values()) and watermarks(kafka, topic) == written

        wait_for(ended, "the broker ends the transaction")
        assert time.monotonic() - began > 1.9

    with pytest.raises(Fatal, match="the broker may have ended it") as told:
        session.commit(copies(records), before_commit=outlive)
    assert not isinstance(told.value, Fenced)
    assert read_topic("predictions") == []


def test_fenced_while_only_polling(open_session, wait_for):
    older = open_session("s0")
    wait_for(lambda: older.take(1, 0.1) or older.assignment(), "an assignment")
    newer = open_session("s0")

    def fenced() -> bool:
        newer.take(1, 0.0)
        try:
            older.take(1, 0.1)
        except Fenced:
            return True
        return False

    wait_for(fenced, "the older one hears of it")


def test_fenced_and_robbed_of_its_partitions_in_one_poll(open_session, wait_for, monkeypatch):
    """As a process meets it that was stopped for longer than its session: the reason is told once only."""
    session = open_session()
    wait_for(lambda: session.take(1, 0.05) or session.assignment(), "it has partitions")
    session.take(1, 0.05)

    class Woken:
        def poll(self, timeout_s: float) -> Woken:
            session._on_moved(None, [TopicPartition(*where) for where in held])
            return self

        def consume(self, most: int, timeout_s: float) -> list[object]:
            return []

        def error(self) -> KafkaError:
            return KafkaError(KafkaError._FATAL, KafkaError(KafkaError.FENCED_INSTANCE_ID).str())

    held = session.assignment()
    monkeypatch.setattr(session, "_consumer", Woken())
    with pytest.raises(Fenced):
        session.take(10, 0.05)


def test_a_record_that_the_client_complains_of_twice_is_stepped_over_once(open_session, prefix, wait_for, monkeypatch):
    session = open_session()
    wait_for(lambda: session.take(1, 0.05) or session.assignment(), "it has partitions")
    topic, real = topic_name("transactions", prefix), session._consumer

    class Complaint:
        error = staticmethod(lambda: KafkaError(KafkaError._BAD_COMPRESSION, "cannot be unpacked"))
        topic, partition, offset = staticmethod(lambda: topic), staticmethod(lambda: 0), staticmethod(lambda: 0)

    class Complaining:
        poll = staticmethod(lambda timeout_s: Complaint())
        consume = staticmethod(lambda most, timeout_s: [Complaint(), Complaint()])

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(session, "_consumer", Complaining())
    assert [r[:3] for r in session.take(10, 0.05)] == [(topic, 0, 0)]
    assert [r[:3] for r in session.take(10, 0.05)] == [(topic, 0, 1)]


def test_partitions_move_to_a_second_replica(kafka, prefix, open_session, feed, copies, read_topic, wait_for):
    fed = feed(40)
    first = open_session("s0")
    first.commit(copies(take(first, 1, wait_for)))
    second = open_session("s1")  # only now: one that joined and does not take could hold up the group
    done = Counter({"s0": 1})

    def turn(name: str, session: Session) -> None:
        try:
            if records := session.take(3, 0.05):
                session.commit(copies(records))
                done[name] += len(records)
        except Rewind:
            done["rewinds"] += 1

    def both() -> bool:
        turn("s0", first)
        turn("s1", second)
        return done["s0"] + done["s1"] >= 40

    wait_for(both, "all copied")
    wait_for(lambda: both() and first.assignment() and second.assignment(), "a partition each")
    members = {m.client_id: m.partitions for m in group_members(kafka, group_name("copier", prefix))}
    assert members == {"s0": first.assignment(), "s1": second.assignment()}
    assert first.moves == 1
    assert sorted(values(read_topic("predictions"))) == sorted(fed)


def test_what_was_taken_before_partitions_moved_is_given_up(open_session, feed, wait_for):
    feed(2)
    first = open_session("s0")
    take(first, 2, wait_for)  # both partitions, uncommitted
    second = open_session("s1")

    def moved() -> bool:
        second.take(1, 0.0)
        try:
            first.take(1, 0.1)
        except Rewind:
            return True
        return False

    wait_for(moved, "a rewind")
    assert len(first.assignment()) == 1


def test_lag_of_a_topic(open_session, feed, prefix, wait_for):
    feed(10)
    topics = [topic_name("transactions", prefix), topic_name("labels", prefix)]
    session = open_session(topics=topics)
    taken = take(session, 1, wait_for)
    wait_for(lambda: session.lag() == 9, "9 behind")
    assert session.lag(topics[0]) == 9
    assert session.lag(topics[1]) == 0
    taken += take(session, 9, wait_for)
    assert session.lag() == 0
    session.commit([])
    session.close()
    resumed = open_session(topics=topics)
    wait_for(lambda: resumed.take(1, 0.1) or len(resumed.assignment()) == 4, "an assignment")
    assert resumed.lag() == 0, "records that the group committed already do not count"


def test_a_record_for_a_broker_that_takes_less_ends_in_a_clear_error(open_session, prefix, read_topic, monkeypatch):
    monkeypatch.setattr("shared.kafka.session.ABORTS_MAX", 2)
    session = open_session()
    huge = Out(topic_name("predictions", prefix), "k", os.urandom(MAX_RECORD_BYTES + 1))
    with pytest.raises(Rewind, match="Message size too large"):
        session.commit([huge])
    with pytest.raises(Fatal, match=r"2 transactions in a row .* Message size too large"):
        session.commit([huge])
    assert read_topic("predictions") == []


def test_a_transaction_that_fails_while_it_is_filled_is_taken_again(
    open_session, feed, copies, read_topic, prefix, wait_for
):
    fed, session = feed(2), open_session()

    def filling() -> Iterator[Out]:
        yield Out(topic_name("predictions", prefix), "k", os.urandom(MAX_RECORD_BYTES + 1))
        time.sleep(1.0)  # by now the broker has refused it
        yield Out(topic_name("predictions", prefix), "k", b"after")

    take(session, 2, wait_for)
    with pytest.raises(Rewind, match=r"has failed.* Message size too large"):
        session.commit(filling())

    def answered() -> bool:
        with suppress(Rewind):  # once more: the client goes on counting behind the record that was refused
            session.commit(copies(take(session, 2, wait_for)))
            return True
        return False

    wait_for(answered, "the next transaction")
    assert set(values(read_topic("predictions"))) == fed


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_held_or_not_stays_so_when_partitions_come_back(open_session, prefix, wait_for, feed, wanted):
    session, topic = open_session(), topic_name("transactions", prefix)
    feed(1)
    take(session, 1, wait_for)
    session.commit([])
    session.hold([topic] if wanted else [])
    session._consumer.unsubscribe()
    wait_for(lambda: session._consumer.poll(0.05) is None and not session.assignment(), "all gone")
    session.hold([] if wanted else [topic])  # said while there is nothing to hold
    session._join()
    values, got = feed(3), []

    def read() -> list[bytes | None]:
        with suppress(Rewind):
            got.extend(r.value for r in session.take(10, 0.05))
        return got

    wait_for(lambda: read() or session.assignment(), "they are back")
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        read()
    assert set(got) == (values if wanted else set())


def test_transactions_that_fail_for_long_end_the_process_before_many_did(open_session, prefix, monkeypatch):
    monkeypatch.setattr("shared.kafka.session.STUCK_S", 1.0)
    session = open_session()
    out = Out(topic_name("predictions", prefix), "k", b"v")

    def fails() -> None:
        # The broker refuses to abort what it has not heard of, if the last one it knows of was committed.
        assert session._producer.flush(10) == 0
        raise Rewind("as a transaction that cannot be delivered")

    def aborted(times: int) -> None:
        for _ in range(times):
            with pytest.raises(Rewind):
                session.commit([out], before_commit=fails)

    aborted(3)
    time.sleep(1.1)
    session.commit([out])  # one that passes, and both count anew
    aborted(3)
    time.sleep(1.1)
    with pytest.raises(Fatal, match=r"4 transactions in a row were aborted, in [1-9]"):
        session.commit([out], before_commit=fails)


def test_three_mib_pass_and_more_is_refused(kafka, prefix, read_topic):
    writer = Writer(kafka, "w", transactional_id=f"{prefix}-w", budget_s=BUDGET_S)
    large = os.urandom(3 * 1024 * 1024)
    writer.publish([Out(topic_name("transactions", prefix), "k", large)])
    with pytest.raises(Refused, match=r"too large to publish to .*transactions"):
        writer.publish([Out(topic_name("transactions", prefix), "k", os.urandom(MAX_RECORD_BYTES + 1))])
    writer.publish([Out(topic_name("transactions", prefix), "k", b"next")])
    assert [m.value() for m in sorted(read_topic("transactions"), key=lambda m: m.offset())] == [large, b"next"]
    writer.close()
