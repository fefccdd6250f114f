"""One function for every score."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bundle import Bundle, Costs, Thresholds
from shared.scores import at_budget, cost_threshold, cut_in_force, expected_cost, scores


def test_by_hand() -> None:
    found = scores([0.9, 0.8, 0.7, 0.2, 0.1], [1, 0, 1, 1, 0])
    assert (found.accuracy, found.precision, found.recall) == (3 / 5, 2 / 3, 2 / 3)
    assert found.f1 == pytest.approx(2 / 3)


def test_with_so_many_alerts_the_likeliest_are_looked_at() -> None:
    p, y = [0.9, 0.1, 0.8, 0.8, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3], [1, 1, 0, 1, 1, 0, 0, 0, 0, 0]
    assert at_budget(p, y, 100) == (1.0, 1 / 4)
    assert at_budget(p, y, 299) == (1 / 2, 1 / 4)  # two alerts; the earlier of equals comes first
    assert at_budget(p, y, 1_000) == (4 / 10, 1.0)
    assert at_budget([0.5], [0], 1) == (0.0, 0.0)  # one alert at least


def test_costs_are_judged_at_the_threshold_in_force(bundle: Bundle) -> None:
    manifest = bundle.manifest
    by_cost = cost_threshold(manifest.costs)
    assert manifest.thresholds.flag > by_cost
    assert cut_in_force(manifest) == by_cost, "no budget: the flag threshold serves accuracy"
    strict = msgspec.structs.replace(manifest, alerts_per_1000=10.0, thresholds=Thresholds(flag=0.9))
    assert cut_in_force(strict) == 0.9
    assert expected_cost([0.8, 0.95], [1, 0], Costs(), 0.9) == (5 + 1) / 2
    assert expected_cost([0.8, 0.95], [1, 0], Costs()) == 1 / 2


def test_undefined_ratios_are_zero() -> None:
    found = scores([0.1, 0.2], [0, 0])
    assert (found.accuracy, found.precision, found.recall, found.f1) == (1.0, 0.0, 0.0, 0.0)


def test_cost_is_decided_at_one_sixth_by_default() -> None:
    assert cost_threshold(Costs()) == pytest.approx(1 / 6)
    # flagged: .2 (a false alarm, 1) and .17 (right); missed: .16 (a fraud, 5)
    assert expected_cost([0.2, 0.17, 0.16, 0.0], [0, 1, 1, 0], Costs()) == 6 / 4


rows = st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), min_size=1, max_size=40)


@given(rows)
def test_counts_agree_with_counting(pairs: list[tuple[float, int]]) -> None:
    p, y = np.array([a for a, _ in pairs], np.float32), [b for _, b in pairs]
    right = sum((a > 0.5) == (b == 1) for a, b in pairs)
    assert scores(p, y).accuracy == right / len(pairs)
    cost = sum((0 if b else 1) if a > 1 / 6 else 5 * b for a, b in pairs)
    assert expected_cost(p, y, Costs()) == pytest.approx(cost / len(pairs))
