"""Which topic waits for the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.pacing import waiting
from shared.topics import Name


@pytest.mark.parametrize(
    ("held", "early", "pending", "left", "expected"),
    [
        (None, 0, 0, True, None),
        (None, 99, 0, True, None),
        (None, 100, 0, True, "labels"),
        ("labels", 51, 0, True, "labels"),
        ("labels", 50, 0, True, None),
        (None, 0, 74, True, None),
        (None, 0, 75, True, "predictions"),
        (None, 0, 100, False, None),
        ("predictions", 0, 51, True, "predictions"),
        ("predictions", 0, 50, True, None),
        ("predictions", 0, 100, False, None),
        (None, 100, 100, True, "labels"),
    ],
)
def test_by_the_table(held: Name | None, early: int, pending: int, left: bool, expected: Name | None) -> None:
    assert waiting(held, early, pending, 100, left) == expected


@given(st.sampled_from([None, "labels", "predictions"]), st.integers(0, 20), st.integers(0, 20))
def test_predictions_never_wait_for_labels_that_are_not_there(held: Name | None, early: int, pending: int) -> None:
    assert waiting(held, early, pending, 10, False) != "predictions"
