"""Rows of predictions, from where their batches stood."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.fetching import GAP, SPAN, rows_of, spans
from shared.records import encode

offsets = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 400)), max_size=60)


@given(offsets)
def test_few_ranges_hold_every_offset_once_and_little_else(wanted: set[tuple[int, int]]) -> None:
    found = list(spans("t", sorted(wanted)))
    held = [(r.partition, k) for r in found for k in range(r.start, r.end)]
    assert len(held) == len(set(held))
    assert wanted <= set(held)
    assert all(r.end - r.start <= SPAN for r in found)
    for r in found:
        inside = sorted(k for p, k in wanted if p == r.partition and r.start <= k < r.end)
        assert inside[0] == r.start
        assert inside[-1] == r.end - 1
        assert all(b - a <= GAP for a, b in itertools.pairwise(inside))


def record(**changed: object) -> bytes:
    return encode({"batch_id": "b", "transaction_ids": ["x", "y"], "features": [[1, 2.5], [3.1, 4]], **changed})


def test_rows_are_the_float32_that_the_scorer_read() -> None:
    x = rows_of(record(), "b", 2)
    assert x is not None
    assert x.dtype == np.float32
    assert np.array_equal(x, np.array([[1, 2.5], [3.1, 4]], np.float32))


@pytest.mark.parametrize(
    "value",
    [
        None, b"{", record(batch_id="another"), record(features=[[1, 2], [3]]), record(features=[[1, 2, 3]]),
        record(features=[[1, 1e300]]), record(features=[]),
    ],
)  # fmt: skip
def test_what_is_not_the_batch_is_left_out(value: bytes | None) -> None:
    assert rows_of(value, "b", 2) is None
