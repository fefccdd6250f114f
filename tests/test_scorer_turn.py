"""One turn without Kafka: every record is answered once, in order, where it belongs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from scorer.catalog import Catalog, View
from scorer.decode import Decoder
from scorer.turn import Targets, answer, awaited
from shared.bundle import Bundle
from shared.forward import Network
from shared.kafka import Out, Taken
from shared.topics import MAX_RECORD_BYTES

TO = Targets({"predictions": "P.predictions", "conflicts": "P.conflicts", "dead-letters": "P.dead-letters"}, 4)


@pytest.fixture(scope="module")
def view(bundle: Bundle) -> View:
    plain = Catalog(bundle, Network.of(bundle)).view()
    v2 = msgspec.structs.replace(plain.active, version="v2", c=np.float32(-20))  # never says fraud
    return msgspec.structs.replace(plain, loaded={**plain.loaded, "v2": v2}, refused={"v3": "it is broken"})


@pytest.fixture
def turn(bundle: Bundle, view: View) -> Any:
    def run(records: list[Taken]) -> list[Out]:
        return answer(records, view, Decoder(len(bundle.features)), bundle, Network.of(bundle), TO)

    return run


def taken(value: bytes | None, offset: int = 0, partition: int = 0, **headers: bytes) -> Taken:
    return Taken("P.transactions", partition, offset, 0, b"key", value, headers)


def batch(name: str = "b1", rows: int = 5, v14: float = 0.5) -> bytes:
    features = [[0.1] * 7 + [v14] + [0.1] * 2] * rows
    ids = [f"{name}-{i}" for i in range(rows)]
    return json.dumps(
        {"batch_id": name, "transaction_ids": ids, "features": features, "created_at": "2026-01-01T00:00:00Z"}
    ).encode()


def test_each_record_is_answered_once_and_in_order(turn):
    records = [taken(batch(f"b{i}") if i % 3 else b"junk", offset=i, partition=i % 2) for i in range(30)]
    outs = [out for out in turn(records) if out.topic != "P.conflicts"]
    assert len(outs) == 30
    for i, out in enumerate(outs):
        if i % 3:
            assert (out.topic, out.key, out.partition) == ("P.predictions", f"b{i}", i % 2)
            source = json.loads(out.value or b"")["source"]
            assert source == {"topic": "P.transactions", "partition": i % 2, "offset": i}
        else:
            assert (out.topic, out.key, out.value) == ("P.dead-letters", f"P.transactions/{i % 2}/{i}", b"junk")


def test_a_dead_letter_tells_its_story(turn):
    bad = batch().replace(b"0.5", b'"x"', 1)
    (out,) = turn([taken(bad, offset=7, partition=3)])
    headers = {k: v.decode() if isinstance(v, bytes) else v for k, v in out.headers.items()}
    assert out.value == bad
    assert "Expected `float`" in headers.pop("reason")
    assert headers == {
        "field": "features[0][7]", "source.topic": "P.transactions", "source.partition": "3", "source.offset": "7",
        "service": "scorer",
    }  # fmt: skip


def test_a_tombstone_is_a_dead_letter_without_a_value(turn):
    (out,) = turn([taken(None)])
    assert (out.topic, out.value) == ("P.dead-letters", None)
    assert "field" not in out.headers


def test_what_unfolds_beyond_all_bounds_stays_where_it_is(turn):
    (out,) = turn([taken(b" " * (MAX_RECORD_BYTES + 1))])
    assert out.value is None
    assert b"4194305 bytes" in out.headers["reason"]
    assert b"too large to be copied" in out.headers["reason"]


def test_predictions_keep_their_partition_where_the_topic_has_it(turn):
    near, far = turn([taken(batch(), partition=3), taken(batch(), partition=4)])
    assert (near.partition, far.partition) == (3, None)


def test_lockstep_is_passed_on_and_nothing_else(turn):
    outs = turn([taken(batch(), lockstep=b"1", trace=b"x"), taken(batch(), lockstep=b"0"), taken(batch())])
    assert [dict(out.headers) for out in outs] == [{"lockstep": b"1"}, {}, {}]


def test_conflicts_follow_their_prediction(turn):
    outs = turn([taken(batch("b1", v14=0.5), 1), taken(batch("b2", v14=-1.6), 2, partition=1, adapter=b"v2")])
    assert [(o.topic, o.key, o.partition) for o in outs[1:]] == [
        ("P.predictions", "b2", 1),
        ("P.conflicts", "b2", 1),
    ]
    assert json.loads(outs[2].value)["transaction_ids"] == [f"b2-{i}" for i in range(5)]


def test_a_named_adapter_scores_its_batch_and_no_other(turn):
    outs = turn([taken(batch()), taken(batch(), adapter=b"v2"), taken(batch(), adapter=b"v1")])
    first, named, own = (json.loads(out.value) for out in outs)
    assert [first["adapter_version"], named["adapter_version"], own["adapter_version"]] == ["v1", "v2", "v1"]
    assert first["probability"] == own["probability"] != named["probability"]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (b"v3", "v3: it is broken"),
        (b"v9", "v9: not published, or not in time"),
        (b"", "1 to 200"),
        (b"v" * 201, "1 to 200"),
        (b"\xff", "not published"),
    ],
)
def test_an_adapter_that_is_not_there_is_a_dead_letter(turn, version, reason):
    (out,) = turn([taken(batch(), adapter=version)])
    assert (out.topic, out.value) == ("P.dead-letters", batch())
    assert out.headers["field"] == b"header:adapter"
    assert reason in out.headers["reason"].decode()


def test_bad_bytes_are_blamed_before_the_adapter(turn):
    (out,) = turn([taken(b"junk", adapter=b"v9")])
    assert b"not JSON" in out.headers["reason"]


def test_only_what_may_still_come_is_waited_for(view):
    named = [b"v1", b"v2", b"v3", b"v8", b"v9", b"", b"v8"]
    records = [taken(b"", adapter=version) for version in named] + [taken(b"")]
    assert awaited(records, view, given_up=()) == {"v8", "v9"}
    assert awaited(records, view, given_up={"v9"}) == {"v8"}
