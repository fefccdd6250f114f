"""Records on the wire: what goes out comes back, what cannot be used is refused with the field to blame."""

from __future__ import annotations

import contextlib
import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import records
from shared.errors import Refused
from shared.records import Event, Labels, Prediction, Source, Transactions, check_batch, check_labels, decode, encode
from shared.topics import TOPICS

BATCH = Transactions(
    batch_id="b1",
    transaction_ids=["t1", "t2"],
    features=[[1.0, 2.0], [3.0, 4.0]],
    created_at="2026-01-01T00:00:00Z",
    amounts=[9.5, 10.0],
)
names = st.text(min_size=1, max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def batches(draw: st.DrawFn) -> Transactions:
    """Valid ones, two features wide."""
    ids = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    rows = draw(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=len(ids), max_size=len(ids)))
    return Transactions(batch_id=draw(names), transaction_ids=ids, features=rows, created_at=draw(names))


@given(batches())
def test_a_batch_comes_back_as_it_was(batch):
    back = decode(Transactions, encode(batch))
    assert back == batch
    check_batch(back, 2)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=10))
def test_probabilities_come_back_to_the_bit(values):
    """Replay compares them so; they are written as the scorer does, from a float32 array."""
    healed = np.array(values, np.float32)
    body = {"batch_id": "b", "transaction_ids": ["t"] * len(values), "probability": healed} | {
        "shadow_probability": healed, "adapter_version": "v1", "bundle": "x", "created_at": "",
        "source": Source(topic="t", partition=0, offset=0), "rule": np.zeros(len(values), np.uint8),
        "flag": [], "conflicts": 0, "feature_sums": [], "feature_squares": [],
    }  # fmt: skip
    back = decode(Prediction, encode(body))
    assert np.array(back.probability, np.float32).tobytes() == healed.tobytes()


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(value):
    for topic in TOPICS.values():
        if topic.kind is not None:
            with contextlib.suppress(Refused):  # and nothing else is raised
                decode(topic.kind, value)


def test_fields_of_a_newer_version_are_ignored():
    assert decode(Transactions, encode({**msgspec.structs.asdict(BATCH), "added_later": [1, {"a": 2}]})) == BATCH


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"batch_id": ""}, "batch_id"),
        ({"batch_id": 7}, "batch_id"),
        ({"transaction_ids": []}, "transaction_ids"),
        ({"transaction_ids": ["t"] * 1_001}, "transaction_ids"),
        ({"features": [[1.0, "2"], [3, 4]]}, "features[0][1]"),
        ({"features": [[1.0, None], [3, 4]]}, "features[0][1]"),
        ({"amounts": "much"}, "amounts"),
    ],
)
def test_a_wrong_field_is_named(changed, field):
    with pytest.raises(Refused) as refused:
        decode(Transactions, json.dumps(msgspec.structs.asdict(BATCH) | changed).encode())
    assert refused.value.field is not None
    assert refused.value.field.startswith(field.partition("[")[0])


def test_a_missing_field_and_no_value_are_told():
    body = msgspec.structs.asdict(BATCH)
    del body["features"]
    with pytest.raises(Refused, match="features"):
        decode(Transactions, encode(body))
    with pytest.raises(Refused, match="tombstone"):
        decode(Transactions, None)
    with pytest.raises(Refused, match="not JSON"):
        decode(Transactions, b'{"batch_id": NaN}')
    with pytest.raises(Refused, match=r"not JSON|object"):
        decode(Transactions, b"[" * 100_000)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"features": [[1.0, 2.0]]}, "features: 1 rows for 2 transaction ids"),
        ({"features": [[1.0, 2.0], [3.0]]}, r"features\[1\]: 1 features, the bundle has 2"),
        ({"features": [[1.0, 2.0], [3.0, math.nan]]}, r"features\[1\]\[1\]: not a finite number"),
        ({"features": [[1.0, -math.inf], [3.0, 4.0]]}, r"features\[0\]\[1\]: not a finite number"),
        ({"transaction_ids": ["t1", "t1"]}, "transaction_ids: a transaction id occurs twice"),
        ({"amounts": [1.0]}, "amounts: 1 amounts for 2 transaction ids"),
        ({"amounts": [1.0, math.inf]}, "amounts: an amount is not a finite number"),
    ],
)
def test_what_the_type_cannot_say_is_checked(changed, told):
    with pytest.raises(Refused, match=told):
        check_batch(msgspec.structs.replace(BATCH, **changed), 2)


@pytest.mark.parametrize(
    ("labels", "told"), [([1], "1 labels for 2 ids"), ([1, 0, 1], "3 labels for 2 ids"), ([1, 0], "occurs twice")]
)
def test_labels_are_checked(labels, told):
    ids = ["t1", "t1"] if "twice" in told else ["t1", "t2"]
    with pytest.raises(Refused, match=told):
        check_labels(Labels(batch_id="b", transaction_ids=ids, labels=labels))


def test_a_label_is_0_or_1():
    with pytest.raises(Refused, match="labels"):
        decode(Labels, b'{"batch_id": "b", "transaction_ids": ["t"], "labels": [2]}')


def test_an_events_facts_stand_beside_its_message():
    event = Event(at="now", kind="drift-detected", message="it drifts", service="monitor", facts={"z_score": 1.5})
    wire = json.loads(encode(event))
    assert wire == {
        "at": "now", "kind": "drift-detected", "message": "it drifts", "service": "monitor", "z_score": 1.5,
    }  # fmt: skip
    assert records.decode_event(encode(event)) == event


def test_a_fact_cannot_stand_in_for_what_the_event_says():
    event = Event(at="now", kind="healed", message="m", facts={"kind": "other"})
    assert json.loads(encode(event))["kind"] == "healed"


@pytest.mark.parametrize("topic", [t for t in TOPICS.values() if t.kind is not None], ids=lambda t: t.name)
def test_records_cannot_be_changed(topic):
    assert topic.kind.__struct_config__.frozen
