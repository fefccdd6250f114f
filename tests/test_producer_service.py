"""The producer on a real broker: what it publishes, at what rate, and how lockstep waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from in_thread import in_thread

from producer.batch import Batch
from producer.labels import LabelPlan, audited
from producer.service import Sent, encode_batch, run, unique_name
from producer.sources import Synthetic
from producer.target import Target
from shared.errors import OperatorError
from shared.kafka import Follower, Out, Taken, Writer
from shared.records import Labels, Metrics, Transactions, check_batch, decode, decode_event, encode
from shared.settings import ProducerSettings, load
from shared.topics import topic_name

Read = Callable[..., list[Message]]


def settings(prefix: str, **more: Any) -> ProducerSettings:
    return load(ProducerSettings, prefix=prefix, **more)


def sent_batches(read_topic: Read) -> dict[str, Message]:
    """By batch id, in the order of the ids."""
    return dict(sorted((m.key().decode(), m) for m in read_topic("transactions")))


@pytest.mark.broker
def test_batches_labels_and_events_are_as_the_contract_says(
    kafka: dict[str, str], prefix: str, read_topic: Read
) -> None:
    seen: list[Sent] = []
    plan = LabelPlan(delay=2, audit_share=0.3, audit_delay=0, seed=5)
    done = run(settings(prefix), kafka, Synthetic(1, 20), batches=5, labels=plan, run_name="r1", on_batch=seen.append)
    found = sent_batches(read_topic)
    assert list(found) == [f"r1-00000{k}" for k in range(1, 6)] == [s.batch_id for s in seen]
    ids: list[str] = []
    for k, message in enumerate(found.values(), start=1):
        batch = decode(Transactions, message.value())
        check_batch(batch, 10)
        assert batch.batch_id == message.key().decode()
        assert message.headers() is None
        np.testing.assert_array_equal(np.array(batch.features, np.float32), Synthetic(1, 20).batch(k).rows.astype("f4"))
        ids += batch.transaction_ids
    assert len(set(ids)) == 100
    labels = [decode(Labels, m.value()) for m in read_topic("labels")]
    delayed = {r.batch_id: r.labels for r in labels if r.kind == "delayed"}
    assert delayed == {f"r1-00000{k}": truth(1, 20, k) for k in (1, 2, 3)}
    told = {t for r in labels if r.kind == "audit" for t in r.transaction_ids}
    assert told == {t for t in ids if audited(5, t, 0.3)}
    assert (done.run, done.batches, done.rows, done.labels, done.outstanding) == ("r1", 5, 100, 3, 2)
    events = [decode_event(m.value()) for m in read_topic("events")]
    assert [(e.kind, e.service, e.facts["run"]) for e in events] == [
        ("service-started", "producer", "r1"), ("service-stopped", "producer", "r1"),
    ]  # fmt: skip
    assert {"slot", "pid", "host", "version"} <= set(events[0].facts)


def truth(seed: int, rows: int, k: int) -> list[int]:
    labels = Synthetic(seed, rows).batch(k).labels
    assert labels is not None
    return labels.tolist()


@pytest.mark.broker
@pytest.mark.parametrize(("plan", "sent", "left"), [
    (LabelPlan(delay=9, flush=True), 4, 0), (LabelPlan(delay=9), 0, 4), (LabelPlan(delay=None), 0, 0),
])  # fmt: skip
def test_outstanding_labels_go_out_at_the_end_only_if_asked(
    kafka: dict[str, str], prefix: str, read_topic: Read, plan: LabelPlan, sent: int, left: int
) -> None:
    done = run(settings(prefix), kafka, Synthetic(1, 5), batches=4, labels=plan)
    assert (done.labels, done.outstanding) == (sent, left)
    assert len(read_topic("labels")) == sent


@pytest.mark.broker
def test_the_rate_is_kept_and_a_stop_is_clean(kafka: dict[str, str], prefix: str, read_topic: Read) -> None:
    done = run(settings(prefix), kafka, Synthetic(1, 5), batches=11, rate=50)
    assert done.took_s >= 0.2
    stamps = sorted(m.timestamp()[1] for m in read_topic("transactions"))
    assert len(stamps) == 11
    assert 190 <= stamps[-1] - stamps[0] < 2_000

    seen: list[Sent] = []
    begin = time.monotonic()
    done = run(settings(prefix), kafka, Synthetic(1, 5), rate=0.01, on_batch=seen.append, stop=lambda: len(seen) > 0)
    assert done.batches == 1
    assert time.monotonic() - begin < 10
    assert len(read_topic("transactions")) == 12
    assert read_topic("events")[-1].value().find(b"service-stopped") > 0


@pytest.mark.broker
def test_run_names_are_unique_unless_given(kafka: dict[str, str], prefix: str, read_topic: Read) -> None:
    runs = {run(settings(prefix), kafka, Synthetic(1, 2), batches=1).run for _ in range(2)}
    assert len(runs) == 2
    assert len(sent_batches(read_topic)) == 2
    assert unique_name("east-1").endswith("-east-1")
    with pytest.raises(OperatorError, match="run name 'a b'"):
        run(settings(prefix), kafka, Synthetic(1, 2), batches=1, run_name="a b")


@pytest.mark.broker
def test_a_missing_topic_is_named_before_anything_is_sent(kafka: dict[str, str], prefix: str) -> None:
    with pytest.raises(OperatorError, match=rf"no topic .*{prefix}x\.transactions; `selfheal topics`"):
        run(settings(f"{prefix}x"), kafka, Synthetic(1, 2), batches=1)


@pytest.mark.broker
def test_lockstep_refuses_what_can_never_settle(kafka: dict[str, str], prefix: str) -> None:
    with pytest.raises(OperatorError, match="label delay 0"):
        run(settings(prefix), kafka, Synthetic(1, 2), lockstep=True, labels=LabelPlan(delay=1))
    with pytest.raises(OperatorError, match="give its prefix, not a topic"):
        run(settings(prefix), kafka, Synthetic(1, 2), lockstep=True, to=Target("t", None, None))


class Outside:
    """Plays scorer, monitor and healer: answers each transactions record with what `reply` gives."""

    def __init__(self, kafka: dict[str, str], prefix: str, reply: Callable[[Taken], list[Out]]) -> None:
        self.order: list[str] = []
        self._kafka, self._topic, self._reply = kafka, topic_name("transactions", prefix), reply

    def _work(self, stop: Callable[[], bool]) -> None:
        writer = Writer(self._kafka, "outside")
        with closing(Follower(self._kafka, [self._topic], name="outside")) as follower:
            while not stop():
                for record in follower.take(0.05):
                    self.order.append(f"got {(record.key or b'').decode()}")
                    for out in self._reply(record):
                        self.order.append(f"row {out.key!s}")
                        writer.send(out)
                    writer.flush()

    @contextmanager
    def working(self) -> Iterator[Outside]:
        with in_thread(self._work):
            yield self


def row(prefix: str, record: Taken, **more: Any) -> Out:
    batch = decode(Transactions, record.value)
    metrics = Metrics(
        batch_idx=int(batch.batch_id[-6:]), batch_id=batch.batch_id, timestamp=batch.created_at,
        rows=len(batch.features), z_score=None, n_conflicts=0,
    )  # fmt: skip
    return Out(topic_name("metrics", prefix), batch.batch_id, encode(msgspec.structs.replace(metrics, **more)))


@pytest.mark.broker
def test_lockstep_sends_the_next_batch_when_this_one_is_settled(
    kafka: dict[str, str], prefix: str, read_topic: Read
) -> None:
    # A row of the same batch id from a run before ours must not be taken for ours.
    Writer(kafka, "before").publish(
        [Out(topic_name("metrics", prefix), "s3-000001", encode_row("s3-000001", next_version="v99", settled=True))]
    )

    def reply(record: Taken) -> list[Out]:
        k = int((record.key or b"")[-6:])
        return [row(prefix, record), row(prefix, record, settled=True, next_version=f"v{k + 1}")]

    seen: list[Sent] = []
    with Outside(kafka, prefix, reply).working() as outside:
        done = run(settings(prefix), kafka, Synthetic(3, 4), batches=4, lockstep=True, on_batch=seen.append)
    assert (done.run, done.batches) == ("s3", 4)
    assert outside.order == [
        x for k in range(1, 5) for x in (f"got s3-00000{k}", f"row s3-00000{k}", f"row s3-00000{k}")
    ]
    messages = list(sent_batches(read_topic).values())
    headers = [dict(m.headers()) for m in messages]
    assert headers == [{"lockstep": b"1"}] + [{"lockstep": b"1", "adapter": f"v{k}".encode()} for k in (2, 3, 4)]
    created = [decode(Transactions, m.value()).created_at for m in messages]
    assert created == [f"2026-01-01T00:00:0{k}Z" for k in range(1, 5)]
    assert [(s.version, s.next_version) for s in seen] == [(None, "v2"), ("v2", "v3"), ("v3", "v4"), ("v4", "v5")]
    assert len(read_topic("labels")) == 4


def encode_row(batch_id: str, **more: Any) -> bytes:
    return encode(Metrics(batch_idx=1, batch_id=batch_id, timestamp="", rows=1, z_score=None, n_conflicts=0, **more))


def test_the_same_seed_in_lockstep_sends_the_same_bytes() -> None:
    values = [
        encode_batch(Synthetic(3, 4).batch(2), "s3-000002", ["a", "b", "c", "d"], "2026-01-01T00:00:02Z")
        for _ in range(2)
    ]
    assert values[0] == values[1]


def nothing(_prefix: str, _record: Taken) -> list[Out]:
    return []


def prediction(prefix: str, record: Taken) -> list[Out]:
    return [Out(topic_name("predictions", prefix), record.key, b"{}")]


def unlabelled(prefix: str, record: Taken) -> list[Out]:
    return [*prediction(prefix, record), row(prefix, record, labelled=1)]


def unhealed(prefix: str, record: Taken) -> list[Out]:
    return [row(prefix, record, labelled=4, action="heal")]


@pytest.mark.broker
@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (nothing, r"no prediction: is a scorer running"),
        (prediction, r"a prediction, and no metrics row: is the monitor running"),
        (unlabelled, r"labels came for 1 of its 4 transactions"),
        (unhealed, r"its heal has no outcome \(action 'heal'\): is the healer running"),
    ],
)
def test_lockstep_says_what_did_not_happen(
    kafka: dict[str, str], prefix: str, reply: Callable[[str, Taken], list[Out]], why: str
) -> None:
    short = settings(prefix, commit_budget_s=1, settle_s=1.2)
    with (
        Outside(kafka, prefix, lambda record: reply(prefix, record)).working(),
        pytest.raises(OperatorError, match=r"s3-000001 was not settled within 1.2 s \(PRODUCER_SETTLE_S\): .*" + why),
    ):
        run(short, kafka, Synthetic(3, 4), batches=2, lockstep=True)


@pytest.mark.broker
def test_lockstep_ends_at_once_when_the_batch_is_a_dead_letter(kafka: dict[str, str], prefix: str) -> None:
    def reply(record: Taken) -> list[Out]:
        headers = {"reason": "3 features, the bundle has 10", "field": "features[0]"}
        return [Out(topic_name("dead-letters", prefix), "t/0/0", record.value, headers)]

    with (
        Outside(kafka, prefix, reply).working(),
        pytest.raises(OperatorError, match=r"s3-000001 became a dead letter: features\[0\]: 3 features"),
    ):
        run(settings(prefix), kafka, Synthetic(3, 4), batches=2, lockstep=True)


@pytest.mark.broker
def test_lockstep_stops_while_it_waits(kafka: dict[str, str], prefix: str, read_topic: Read) -> None:
    stopping = threading.Event()

    def reply(_record: Taken) -> list[Out]:
        stopping.set()
        return []

    with Outside(kafka, prefix, reply).working():
        done = run(settings(prefix), kafka, Synthetic(3, 4), lockstep=True, stop=stopping.is_set)
    assert done.batches == 1
    assert len(read_topic("transactions")) == 1


def test_a_number_beyond_single_precision_is_refused() -> None:
    with pytest.raises(OperatorError, match="b1: a feature is not finite in single precision"):
        encode_batch(Batch(np.array([[1e300]])), "b1", ["t"], "")
