"""Whole topics, offset ranges and questions, on a real broker, with what transactions leave between the records."""

from __future__ import annotations

import random
import time

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from shared.errors import Fenced, OperatorError, Refused
from shared.kafka import (
    Deadline,
    Fetcher,
    Follower,
    Out,
    Writer,
    closing,
    create_topics,
    group_members,
    group_offsets,
    list_topics,
    offsets_at,
    read_all,
    watermarks,
)
from shared.records import OffsetRange
from shared.topics import TOPICS, topic_name

pytestmark = pytest.mark.broker


@pytest.fixture
def holed(kafka, prefix):
    """A partition with markers and an aborted record between: a 0, mark 1, aborted 2, mark 3, b 4, c 5, mark 6."""
    topic = topic_name("labels", prefix)
    producer = Producer({**kafka, "transactional.id": f"{prefix}-holed", "linger.ms": 0})
    producer.init_transactions(10)
    for values, end in (([b"a"], "commit"), ([b"never"], "abort"), ([b"b", b"c"], "commit")):
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        producer.flush(10)
        getattr(producer, f"{end}_transaction")(10)
    return topic


def test_a_range_is_read_exactly_across_holes(kafka, holed, wait_for):
    wait_for(lambda: watermarks(kafka, holed)[0] == (0, 7), "the markers")
    with closing(Fetcher(kafka, "fetcher")) as fetcher:

        def fetch(start: int, end: int) -> list[tuple[int, bytes | None]]:
            wanted = OffsetRange(topic=holed, partition=0, start=start, end=end)
            return [(r.offset, r.value) for r in fetcher.fetch(wanted, Deadline(10))]

        assert fetch(0, 7) == [(0, b"a"), (4, b"b"), (5, b"c")]
        assert fetch(0, 1) == [(0, b"a")]
        assert fetch(0, 4) == [(0, b"a")]  # what lies at its end is no record
        assert fetch(1, 4) == []
        assert fetch(4, 5) == [(4, b"b")]
        assert fetch(5, 7) == [(5, b"c")]
        for _ in range(20):  # the end of one range is not taken for the end of the next
            assert len(fetch(0, 7)) == 3
            assert len(fetch(4, 6)) == 2


def test_many_ranges_are_read_each_exactly(kafka, prefix, wait_for):
    """Of every size up to far more than a request brings, with what lies between and behind them left out."""
    topic, rng = topic_name("transactions", prefix), random.Random(7)
    producer = Producer({**kafka, "transactional.id": f"{prefix}-many", "message.max.bytes": 4 * 1024 * 1024})
    producer.init_transactions(10)
    assert list_topics(kafka)[topic] > 1
    parts, sent, known = list_topics(kafka)[topic], dict[tuple[int, int], bytes](), set[tuple[int, int]]()

    def keep(_error, message):
        sent[message.partition(), message.offset()] = message.value()

    for n in range(12):
        producer.begin_transaction()
        for _ in range(20):
            size = rng.choice([10, 1_000, 20_000, 300_000])
            producer.produce(topic, rng.randbytes(size), partition=rng.randrange(parts), on_delivery=keep)
        producer.flush(10)
        if n % 4 == 3:
            gone = [at for at in sent if at not in known]
            producer.abort_transaction(10)
            for at in gone:
                del sent[at]
        else:
            producer.commit_transaction(10)
        known = set(sent)
    ends = {p: max(o for q, o in sent if q == p) + 1 for p in range(parts)}
    wait_for(lambda: all(watermarks(kafka, topic)[p][1] >= end for p, end in ends.items()), "the markers")
    with closing(Fetcher(kafka, "fetcher")) as fetcher:
        for _ in range(15):
            wanted = []
            for p, end in ends.items():
                cuts = sorted(rng.sample(range(end + 1), k=min(end + 1, 2 * rng.randint(0, 3))))
                wanted += [
                    OffsetRange(topic=topic, partition=p, start=a, end=b)
                    for a, b in zip(cuts[::2], cuts[1::2], strict=True)
                ]
            rng.shuffle(wanted)
            found = list(fetcher.fetch_all(wanted, Deadline(30)))
            assert sorted(map(repr, wanted)) == sorted(repr(span) for span, _ in found)
            for span, records in found:
                there = [(o, v) for (p, o), v in sorted(sent.items()) if p == span.partition]
                assert [(r.offset, r.value) for r in records] == [r for r in there if span.start <= r[0] < span.end]


def test_a_range_that_is_gone_is_named_among_others(kafka, holed, wait_for):
    wait_for(lambda: watermarks(kafka, holed)[0] == (0, 7), "the markers")
    wanted = [OffsetRange(topic=holed, partition=0, start=a, end=b) for a, b in ((0, 1), (4, 9))]
    with closing(Fetcher(kafka, "fetcher")) as fetcher:
        found = fetcher.fetch_all(wanted, Deadline(10))
        assert [r.value for r in next(found)[1]] == [b"a"]
        with pytest.raises(Refused, match=r"^rows-gone: offsets 4\.\.9"):
            next(found)
        assert len(fetcher.fetch(wanted[0], Deadline(10))) == 1  # of use as before


@pytest.mark.parametrize(("start", "end"), [(0, 8), (100, 101)])
def test_rows_that_never_were_are_refused(kafka, holed, start, end, wait_for):
    wait_for(lambda: watermarks(kafka, holed)[0] == (0, 7), "the markers")
    wanted = OffsetRange(topic=holed, partition=0, start=start, end=end)
    with closing(Fetcher(kafka, "fetcher")) as fetcher, pytest.raises(Refused, match=r"^rows-gone.* 0\.\.7 there"):
        fetcher.fetch(wanted, Deadline(10))


def test_rows_that_retention_took_are_refused(kafka, holed, wait_for):
    wait_for(lambda: watermarks(kafka, holed)[0] == (0, 7), "the markers")
    admin = AdminClient(kafka)
    for future in admin.delete_records([TopicPartition(holed, 0, 4)]).values():
        future.result(10)
    with closing(Fetcher(kafka, "fetcher")) as fetcher:
        with pytest.raises(Refused, match=r"rows-gone.* 4\.\.7 there"):
            fetcher.fetch(OffsetRange(topic=holed, partition=0, start=0, end=5), Deadline(10))
        kept = fetcher.fetch(OffsetRange(topic=holed, partition=0, start=4, end=5), Deadline(10))
    assert [r.value for r in kept] == [b"b"]


def test_an_empty_topic_is_caught_up_with(kafka, prefix):
    topics = [topic_name("adapters", prefix), topic_name("labels", prefix)]
    with closing(Follower(kafka, topics)) as follower:
        assert not follower.caught_up
        assert list(follower.until_end(10.0)) == []
        assert follower.caught_up


def test_everything_committed_is_read_however_fresh(kafka, prefix):
    """A commit is acknowledged before its markers are written: a reader that trusts its own end misses records."""
    topic = topic_name("labels", prefix)
    writer = Writer(kafka, "w", transactional_id=f"{prefix}-w", budget_s=10)
    for n in range(1, 11):
        writer.publish([Out(topic, str(n), str(n).encode())])
        assert sorted(int(r.value or b"") for r in read_all(kafka, topic)) == list(range(1, n + 1))
    writer.close()


def test_catching_up_again_and_again(kafka, prefix):
    topic = topic_name("control", prefix)
    writer = Writer(kafka, "w", transactional_id=f"{prefix}-w", budget_s=10)
    with closing(Follower(kafka, [topic])) as follower:
        for n in range(5):
            writer.publish([Out(topic, "k", str(n).encode())])
            assert [r.value for r in follower.catch_up(10.0)] == [str(n).encode()]
    writer.close()


def test_from_the_end_misses_nothing_that_comes_next(kafka, prefix, wait_for):
    topic = topic_name("events", prefix)
    writer = Writer(kafka, "w")
    writer.publish([Out(topic, "k", b"before")])
    with closing(Follower(kafka, [topic], from_end=True)) as follower:
        writer.publish([Out(topic, "k", b"after")])  # before the first poll
        seen: list[bytes | None] = []
        wait_for(lambda: seen.extend(r.value for r in follower.take(0.1)) or seen, "the record")
    assert seen == [b"after"]
    writer.close()


def test_since_a_time(kafka, prefix, wait_for):
    topic = topic_name("labels", prefix)
    producer = Producer({**kafka, "linger.ms": 0})
    now = int(time.time() * 1000)
    for i, age_ms in enumerate((30_000, 20_000, 10_000)):
        producer.produce(topic, str(i), partition=0, timestamp=now - age_ms)
    assert producer.flush(10) == 0
    assert offsets_at(kafka, topic, now - 20_000) == {0: 1, 1: 0}
    assert offsets_at(kafka, topic, now + 1) == {0: 3, 1: 0}
    with closing(Follower(kafka, [topic], since_ms=now - 20_000)) as follower:
        assert [r.value for r in follower.until_end(10)] == [b"1", b"2"]


def test_topics_are_made_once_and_as_the_table_says(kafka, prefix):
    assert create_topics(kafka, prefix) == []
    assert sorted(create_topics(kafka, f"{prefix}x", names=["adapters", "labels"], partitions=3)) == [
        f"{prefix}x.adapters",
        f"{prefix}x.labels",
    ]
    found = list_topics(kafka)
    assert found[f"{prefix}x.labels"] == 3
    assert {n for n in found if n.startswith(f"{prefix}.")} == {topic_name(n, prefix) for n in TOPICS}
    resource = ConfigResource(ConfigResource.Type.TOPIC, f"{prefix}x.adapters")
    admin = AdminClient(kafka)
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["cleanup.policy"].value == "compact"


def test_a_topic_that_is_not_there(kafka):
    for ask in (lambda: watermarks(kafka, "no-such"), lambda: Follower(kafka, ["no-such"])):
        with pytest.raises(OperatorError, match="topic no-such does not exist"):
            ask()


def test_a_group_that_is_not_there(kafka, prefix):
    assert group_members(kafka, "no-such-group") == []
    assert group_offsets(kafka, "no-such-group", [topic_name("labels", prefix)]) == {}


def test_a_newer_writer_of_the_same_id_fences_this_one(kafka, prefix, read_topic):
    event = Out(topic_name("events", prefix), "k", b"x")
    older = Writer(kafka, "w", transactional_id=f"{prefix}-w", budget_s=10)
    older.publish([event])
    newer = Writer(kafka, "w", transactional_id=f"{prefix}-w", budget_s=10)
    with pytest.raises(Fenced):
        older.publish([event])
    newer.publish([event])
    assert len(read_topic("events")) == 2
    older.close()
    newer.close()


def test_headers_and_tombstones_come_back_as_they_were(kafka, prefix):
    topic = topic_name("control", prefix)
    with closing(Writer(kafka, "w")) as writer:
        writer.publish([Out(topic, "k", b"v", {"reason": "é", "raw": b"\xff"}), Out(topic, b"k", None)])
    first, second = read_all(kafka, topic)
    assert (first.key, first.value, first.headers) == (b"k", b"v", {"reason": "é".encode(), "raw": b"\xff"})
    assert (second.key, second.value, second.headers) == (b"k", None, {})
    assert second.offset == first.offset + 1


def test_a_key_goes_where_java_clients_put_it(kafka, prefix, read_topic):
    keys = [f"batch-{i}" for i in range(20)]
    with closing(Writer(kafka, "w")) as writer:
        writer.publish([Out(topic_name("transactions", prefix), key, b"") for key in keys])
    found = {m.key().decode(): m.partition() for m in read_topic("transactions")}
    assert found == {key: _murmur2(key.encode()) % 2 for key in keys}


def _murmur2(data: bytes) -> int:
    """Kafka's own, positive (org.apache.kafka.common.utils.Utils)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF
