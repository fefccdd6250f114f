"""Replay on a real broker: the same bits as recorded; anew with drift and labels at their distance; ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient
from conftest import read_whole

from producer.answers import await_answers
from producer.compare import Fingerprints, compare
from producer.drift import Shift
from producer.generator import NAMES
from producer.labels import LabelPlan
from producer.replay import anew, as_recorded
from producer.service import run
from producer.sources import Synthetic
from producer.span import WHOLE, Offsets, Span, parse_offsets, resolve
from producer.target import Target
from shared.errors import OperatorError, Refused
from shared.kafka import Out, Writer, create_topics, list_topics, read_all
from shared.records import Labels, Prediction, Source, Transactions, check_batch, decode, encode
from shared.settings import ProducerSettings, load
from shared.topics import topic_name

BUNDLE = "b" * 64
V14 = NAMES.index("V14")
ADAPTERS = {"v2": b"two\x00\xff", "v3": b"three"}


def settings(prefix: str) -> ProducerSettings:
    return load(ProducerSettings, prefix=prefix)


@pytest.fixture
def again(kafka: dict[str, str], prefix: str) -> Iterator[str]:
    """A second prefix, whose topics the replay makes itself."""
    name = f"{prefix}-again"
    yield name
    left = [t for t in list_topics(kafka) if t.startswith(f"{name}.")]
    if left:
        admin = AdminClient({**kafka, "log_level": 0})
        admin.delete_topics(left, operation_timeout=0)
        admin.poll(0)


def score(kafka: dict[str, str], prefix: str, *, bundle: str = BUNDLE) -> None:
    """Plays the scorer: probabilities are a function of the row and the version alone. The version is the header's,
    else v1, v2, v3 in turn."""
    topic, out = topic_name("transactions", prefix), []
    for record in read_all(kafka, topic):
        try:
            batch = decode(Transactions, record.value)
            check_batch(batch, len(NAMES))
        except Refused as refused:
            place = {
                "source.topic": topic,
                "source.partition": str(record.partition),
                "source.offset": str(record.offset),
            }
            headers = {"reason": refused.reason, **place}
            out.append(Out(topic_name("dead-letters", prefix), f"{topic}/{record.offset}", record.value, headers))
            continue
        version = record.headers.get("adapter", b"v%d" % (1 + record.offset % 3)).decode()
        x = np.array(batch.features, np.float32)
        p = (np.abs(np.sin(x[:, V14] * int(version[1:]))) * np.float32(0.9)).astype(np.float32)
        made = Prediction(
            batch_id=batch.batch_id, transaction_ids=batch.transaction_ids, probability=[], shadow_probability=[],
            adapter_version=version, bundle=bundle, created_at=batch.created_at, rule=[], flag=[], conflicts=0,
            feature_sums=[], feature_squares=[],
            source=Source(topic=topic, partition=record.partition, offset=record.offset),
        )  # fmt: skip
        body = msgspec.structs.asdict(made) | {"probability": p, "shadow_probability": p}
        out.append(Out(topic_name("predictions", prefix), batch.batch_id, encode(body), {}, record.partition))
    Writer(kafka, "score").publish(out)


@pytest.fixture
def recorded(kafka: dict[str, str], prefix: str) -> str:
    """A run of 12 batches with two hostile records in it, scored with v1, v2, v3; its prefix."""
    run(settings(prefix), kafka, Synthetic(1, 5), batches=12, run_name="was")
    transactions = topic_name("transactions", prefix)
    hostile = [
        Out(transactions, "bad", b"\xff not JSON", {"adapter": "v7", "x": b"\x00"}),
        Out(transactions, None, None),
    ]
    adapters = [Out(topic_name("adapters", prefix), v, value, {"version": v}) for v, value in ADAPTERS.items()]
    Writer(kafka, "origin").publish([*hostile, *adapters])
    score(kafka, prefix)
    return prefix


def by_place(kafka: dict[str, str], topic: str) -> list[Message]:
    return read_whole(kafka, topic)


@pytest.mark.broker
def test_as_recorded_gives_the_same_bits(kafka: dict[str, str], recorded: str, again: str) -> None:
    progress: list[int] = []
    done = as_recorded(settings(again), kafka, origin=recorded, bundle=BUNDLE, on_record=progress.append)
    assert (done.adapters, done.batches, done.dead, done.unscored, done.sent) == (2, 12, 2, 0, 14)
    assert progress == list(range(1, 15))
    versions = {
        (p.source.partition, p.source.offset): p.adapter_version
        for p in (decode(Prediction, m.value()) for m in by_place(kafka, f"{recorded}.predictions"))
    }
    assert set(versions.values()) == {"v1", "v2", "v3"}
    old, new = (by_place(kafka, f"{name}.transactions") for name in (recorded, again))
    assert [(m.partition(), m.key(), m.value()) for m in old] == [(m.partition(), m.key(), m.value()) for m in new]
    for was, now in zip(old, new, strict=True):
        version = versions.get((was.partition(), was.offset()))
        wanted = dict(was.headers() or []) | ({"adapter": version.encode()} if version else {})
        assert dict(now.headers() or []) == wanted
    copies = {m.key(): (m.value(), m.headers()) for m in by_place(kafka, f"{again}.adapters")}
    assert copies == {v.encode(): (value, [("version", v.encode())]) for v, value in ADAPTERS.items()}

    score(kafka, again)
    assert await_answers(kafka, again, done.sent) == 14
    found = compare(kafka, recorded, again)
    assert (found.batches, found.rows, found.differing, found.only_old, found.only_new) == (12, 60, 0, 0, 0)
    assert found.same


def prediction(batch_id: str, p: list[float], *, offset: int = 0, **more: Any) -> bytes:
    said: dict[str, Any] = {
        "batch_id": batch_id, "transaction_ids": [f"t{i}" for i in range(len(p))],
        "probability": np.array(p, np.float32), "shadow_probability": [0.5] * len(p),
        "adapter_version": "v1", "bundle": BUNDLE, "source": {"topic": "t", "partition": 0, "offset": offset},
    }  # fmt: skip
    return encode(said | more)


def prints(*values: bytes) -> Fingerprints:
    found = Fingerprints()
    for value in values:
        found.add(value)
    return found


def test_one_bit_of_difference_is_found() -> None:
    p, up = 0.3, float(np.nextafter(np.float32(0.3), np.float32(1)))
    old = prints(prediction("a", [p, p]), prediction("b", [p]), prediction("c", [p]))
    found = old.compare(prints(prediction("a", [p, up], offset=7), prediction("b", [p], offset=8)))
    assert (found.batches, found.rows, found.differing, found.named, found.only_old, found.only_new) == (
        2, 3, 1, ("a",), 1, 0,
    )  # fmt: skip
    assert not found.same
    assert old.compare(prints(prediction("b", [p], offset=8))).same
    for other in (
        {"adapter_version": "v2"},
        {"bundle": "c"},
        {"transaction_ids": ["x"]},
        {"shadow_probability": [0.6]},
    ):
        assert old.compare(prints(prediction("b", [p], **other))).differing == 1
    assert old.compare(prints(prediction("d", [p]))).only_new == 1
    assert not old.compare(prints()).same


def test_a_batch_id_that_was_sent_twice_is_matched_in_order() -> None:
    old = prints(prediction("a", [0.2], offset=5), prediction("a", [0.1], offset=1))
    assert old.compare(prints(prediction("a", [0.1], offset=0), prediction("a", [0.2], offset=3))).same
    assert old.compare(prints(prediction("a", [0.2], offset=0), prediction("a", [0.1], offset=3))).differing == 2


@pytest.mark.broker
def test_as_recorded_refuses_what_cannot_be_the_same(kafka: dict[str, str], recorded: str, again: str) -> None:
    mine = settings(again)
    with pytest.raises(OperatorError, match="needs a prefix of its own"):
        as_recorded(settings(recorded), kafka, origin=recorded)
    with pytest.raises(OperatorError, match=r"scored with bundle bbbbbbbbbbbb, this one is cccccccccccc"):
        as_recorded(mine, kafka, origin=recorded, bundle="c" * 64)
    Writer(kafka, "gone").publish([Out(f"{recorded}.adapters", "v3", None)])
    with pytest.raises(OperatorError, match=r"adapters no longer holds v3, which scored"):
        as_recorded(mine, kafka, origin=recorded)
    score(kafka, recorded, bundle="d" * 64)
    with pytest.raises(OperatorError, match="with several bundles"):
        as_recorded(mine, kafka, origin=recorded)
    Writer(kafka, "used").publish([Out(f"{again}.adapters", "v2", b"")])
    with pytest.raises(OperatorError, match=rf"{again}\.adapters holds records already: .* needs a fresh prefix"):
        as_recorded(mine, kafka, origin=recorded)


@pytest.mark.broker
def test_records_without_an_answer_are_counted_and_not_sent(kafka: dict[str, str], recorded: str, again: str) -> None:
    run(settings(recorded), kafka, Synthetic(2, 5), batches=3, run_name="late")
    done = as_recorded(settings(again), kafka, origin=recorded)
    assert (done.batches, done.dead, done.unscored) == (12, 2, 3)
    with pytest.raises(OperatorError, match=r"0 of 14 records .* are answered, .* is a scorer running"):
        await_answers(kafka, again, done.sent, idle_s=0.5)


def anew_labels(kafka: dict[str, str], prefix: str) -> dict[str, list[str]]:
    """For each labels record, by batch: the batches that were out before it, by Kafka's timestamps."""
    batches = [(m.timestamp()[1], m.key().decode()) for m in by_place(kafka, f"{prefix}.transactions")]
    found = {}
    for m in by_place(kafka, f"{prefix}.labels"):
        record = decode(Labels, m.value())
        found[record.batch_id] = sorted(b for at, b in batches if at <= m.timestamp()[1])
    return found


@pytest.mark.broker
def test_anew_drifts_rows_and_keeps_ids_times_and_the_labels_distance(
    kafka: dict[str, str], prefix: str, again: str
) -> None:
    run(settings(prefix), kafka, Synthetic(1, 5), batches=8, rate=50, labels=LabelPlan(delay=2), run_name="was")
    Writer(kafka, "origin").publish(
        [Out(f"{prefix}.transactions", "bad", b"junk"), Out(f"{prefix}.labels", "?", b"junk")]
    )
    create_topics(kafka, again, partitions=2)
    done = anew(
        settings(again), kafka, origin=Target.of(prefix), features=NAMES, steps=(Shift("V14", 100),), rate=50,
    )  # fmt: skip
    assert (done.batches, done.rows, done.labels) == (8, 40, 6)
    old, new = ({m.key(): decode(Transactions, m.value()) for m in good(kafka, name)} for name in (prefix, again))
    assert list(old) == list(new)
    for was, now in zip(old.values(), new.values(), strict=True):
        assert (was.transaction_ids, was.created_at) == (now.transaction_ids, now.created_at)
        x, y = np.array(was.features), np.array(now.features)
        np.testing.assert_allclose(y[:, V14], x[:, V14] + 100, atol=1e-4)
        np.testing.assert_array_equal(np.delete(y, V14, 1), np.delete(x, V14, 1))
    told = anew_labels(kafka, again)
    assert told == {f"was-00000{k}": [f"was-00000{i}" for i in range(1, k + 3)] for k in range(1, 7)}


def good(kafka: dict[str, str], prefix: str) -> list[Message]:
    return sorted((m for m in by_place(kafka, f"{prefix}.transactions") if m.value() != b"junk"), key=lambda m: m.key())


@pytest.mark.broker
def test_a_part_of_a_stream_brings_its_own_labels(kafka: dict[str, str], prefix: str, again: str) -> None:
    run(settings(prefix), kafka, Synthetic(1, 5), batches=8, rate=50, labels=LabelPlan(delay=2), run_name="was")
    at = {m.key().decode(): m.timestamp()[1] for m in by_place(kafka, f"{prefix}.transactions")}
    create_topics(kafka, again, partitions=2)
    span = Span(since_ms=at["was-000003"], until_ms=at["was-000007"])
    onto = Target(f"{again}.transactions", f"{again}.labels", None)
    done = anew(settings(prefix), kafka, origin=Target.of(prefix), features=NAMES, span=span, rate=100, to=onto)
    assert (done.batches, done.labels) == (4, 2)
    assert list(anew_labels(kafka, again)) == ["was-000003", "was-000004"]
    more = anew(
        settings(prefix), kafka, origin=Target.of(prefix), features=NAMES, span=span, to=onto, flush_labels=True,
        run_name="new",
    )  # fmt: skip
    assert (more.batches, more.labels) == (4, 4)
    ids = {m.key().decode() for m in by_place(kafka, f"{again}.transactions")}
    assert {i for i in ids if i.startswith("new")} == {f"new-00000{k}" for k in range(1, 5)}
    assert {r for r in anew_labels(kafka, again) if r.startswith("new")} == {f"new-00000{k}" for k in range(1, 5)}


@pytest.mark.broker
def test_a_replay_onto_itself_needs_new_names(kafka: dict[str, str], recorded: str) -> None:
    with pytest.raises(OperatorError, match="onto itself doubles its batch ids: give a run name"):
        anew(settings(recorded), kafka, origin=Target.of(recorded), features=NAMES)
    done = anew(settings(recorded), kafka, origin=Target.of(recorded), features=NAMES, run_name="again", span=WHOLE)
    assert (done.batches, done.labels) == (12, 12)
    with pytest.raises(OperatorError, match="class=normal needs labels"):
        anew(
            settings(recorded), kafka, origin=Target.of(recorded), features=NAMES, run_name="x",
            steps=(Shift("V14", 1, "normal"),),
        )  # fmt: skip


@pytest.mark.broker
def test_ranges(kafka: dict[str, str], recorded: str) -> None:
    topic = f"{recorded}.transactions"
    whole = {r.partition: (r.start, r.end) for r in resolve(kafka, topic, WHOLE, 10)}
    assert sum(end - start for start, end in whole.values()) == 14
    assert dict.fromkeys(whole, (1, 2)) == {
        r.partition: (r.start, r.end) for r in resolve(kafka, topic, Span(from_offset=1, to_offset=2), 10)
    }
    (only,) = resolve(kafka, topic, Span(from_offset={1: 1}, to_offset={1: 999}), 10)
    assert (only.partition, only.start, only.end) == (1, 1, whole[1][1])
    for span, why in [
        (Span(from_offset=999), "no record of .* is in the given range"),
        (Span(since_ms=4_000_000_000_000), "no record of .* is in the given range"),
        (Span(until_ms=1), "no record of .* is in the given range"),
        (Span(from_offset={7: 1}), "has no partition 7; it has 0, 1"),
    ]:
        with pytest.raises(OperatorError, match=why):
            resolve(kafka, topic, span, 10)


@pytest.mark.parametrize(
    ("text", "offsets"), [("120", 120), ("0", 0), ("0:120,1:95", {0: 120, 1: 95}), ("3:7", {3: 7})]
)
def test_offsets_as_a_person_writes_them(text: str, offsets: Offsets) -> None:
    assert parse_offsets(text, "--from-offset") == offsets


@pytest.mark.parametrize("text", ["", "x", "-1", "1:", ":1", "1:2,", "1:2,1:3", "1:2:3", "²"])
def test_a_bad_offset_names_its_option(text: str) -> None:
    with pytest.raises(OperatorError, match="--to-offset"):
        parse_offsets(text, "--to-offset")
