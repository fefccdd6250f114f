"""From named offsets to rows: joined, checked, and refused with the offset that is to blame."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.rows import join, merged
from shared.errors import Refused
from shared.kafka import Taken
from shared.records import OffsetRange


def taken(offset: int, body: object, topic: str = "transactions") -> Taken:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Taken(topic, 1, offset, 0, b"k", value, {})


def batch(name: str, *numbers: float, **more: Any) -> dict[str, Any]:
    """A batch of two features a row, rows named a, b, .."""
    ids = [chr(ord("a") + i) for i in range(len(numbers))]
    return {"batch_id": name, "transaction_ids": ids, "features": [[n, -n] for n in numbers], "created_at": "t", **more}


def labels(name: str, **given_labels: int) -> dict[str, Any]:
    return {"batch_id": name, "transaction_ids": [*given_labels], "labels": [*given_labels.values()], "kind": "delayed"}


def test_labels_find_their_rows_by_batch_and_transaction() -> None:
    batches = [taken(4, batch("one", 1, 2, 3)), taken(6, batch("two", 4))]
    answers = [taken(0, labels("two", a=1)), taken(1, labels("one", c=1, a=0)), taken(2, labels("three", b=1))]
    rows = join(batches, answers, 2, 100)
    np.testing.assert_array_equal(rows.x, np.array([[1, -1], [2, -2], [3, -3], [4, -4]], np.float32))
    assert (rows.x.dtype, rows.labels.dtype) == (np.float32, np.int8)
    assert rows.labels.tolist() == [0, -1, 1, 1]


def test_the_later_label_counts() -> None:
    answers = [taken(0, labels("one", a=1)), taken(5, labels("one", a=0))]
    assert join([taken(4, batch("one", 1))], answers, 2, 100).labels.tolist() == [0]


def test_rows_of_the_largest_request_are_taken_and_one_more_is_not() -> None:
    batches = [taken(i, batch(str(i), 1, 2)) for i in range(3)]
    assert len(join(batches, [], 2, 6).x) == 6
    with pytest.raises(Refused, match=r"too-many-rows: one heal reads at most 5 \(HEALER_ROWS_MAX\)"):
        join(batches, [], 2, 5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff{", "not JSON"),
        (b"", "not JSON"),
        (batch("one", 1, created_at=5), "created_at"),
        (batch("one", 1, 2, features=[[1, 2]]), "1 rows for 2 transaction ids"),
        (batch("one", 1, features=[[1, 2, 3]]), r"features\[0\]: 3 features, the bundle has 2"),
        (batch("one", 1, features=[[1, 1e39]]), "too large for float32"),
        (batch("one", 1, 2, transaction_ids=["a", "a"]), "occurs twice"),
    ],
)
def test_a_batch_that_cannot_be_used_is_refused_with_its_offset(body: object, reason: str) -> None:
    with pytest.raises(Refused, match=rf"rows-unreadable: transactions\[1\] offset 7: .*{reason}"):
        join([taken(4, batch("zero", 1)), taken(7, body)], [], 2, 100)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "object"),
        (labels("one", a=2), r"labels\[0\]"),
        (labels("one", a=1) | {"labels": [1, 0]}, "2 labels for 1"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_with_their_offset(body: object, reason: str) -> None:
    with pytest.raises(Refused, match=rf"rows-unreadable: labels\[1\] offset 3: .*{reason}"):
        join([taken(4, batch("one", 1))], [taken(3, body, "labels")], 2, 100)


spans = st.builds(
    lambda topic, partition, start, length: OffsetRange(
        topic=topic, partition=partition, start=start, end=start + length
    ),
    st.sampled_from("tl"),
    st.integers(0, 2),
    st.integers(0, 30),
    st.integers(1, 6),
)


def offsets(ranges: list[OffsetRange]) -> list[tuple[str, int, int]]:
    return [(r.topic, r.partition, o) for r in ranges for o in range(r.start, r.end)]


@given(st.lists(spans, max_size=20))
def test_merging_names_the_same_offsets_each_once_in_the_fewest_ranges(ranges: list[OffsetRange]) -> None:
    found = merged(ranges)
    assert offsets(found) == sorted(set(offsets(ranges)))
    named = set(offsets(ranges))
    assert len(found) == sum((t, p, o - 1) not in named for t, p, o in named)
