"""selfheal/experiment/explain.py: reasons are checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfheal.experiment.explain import OTHERWISE, explain, idle_rollbacks, luck, rule_distance, tail
from selfheal.experiment.published import FIGURES

BY_NAME = {figure.name: figure for figure in FIGURES}


def put(numbers: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        numbers = numbers.setdefault(key, {})
    numbers[path[-1]] = value


def summaries(shift: dict[str, float], further: dict[str, float]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A summary whose intervals hold every published figure +- 0.01 but those shifted, and 100 further seeds that lie
    around the summary's median, or at `further`."""
    summary: dict[str, Any] = {}
    more: list[dict[str, Any]] = [{} for _ in range(100)]
    for figure in FIGURES:
        median = figure.value + shift.get(figure.name, 0.0)
        put(summary, figure.path, {"median": median, "p05": median - 0.01, "p95": median + 0.01})
        for each, offset in zip(more, np.linspace(-0.01, 0.01, 100), strict=True):
            put(each, figure.path, further.get(figure.name, median) + offset)
    for each in more:
        for other in OTHERWISE.values():
            for path, _ in other:
                put(each, path, 9.0)
    return summary, more


def verdict(name: str, shift: dict[str, float], further: dict[str, float]) -> Any:
    return {e.figure: e for e in explain(*summaries(shift, further), 2.2)}[name]


def test_inside_needs_no_reason() -> None:
    assert all(e.inside and not e.text for e in explain(*summaries({}, {}), 2.2))


def test_a_narrow_interval_is_widened_by_further_seeds() -> None:
    e = verdict("clean accuracy", {"clean accuracy": 0.02}, {"clean accuracy": 0.929})
    assert not e.inside
    assert e.checked
    assert "over 100 further simulated seeds the 90% interval is [0.920, 0.938]" in e.text


def test_lifts_are_measured_otherwise_too() -> None:
    summary, more = summaries({"largest lift": 0.1}, {})
    for each in more:
        put(each, ("lift_on_table", "max"), 0.36)
    (e,) = [e for e in explain(summary, more, 2.2) if not e.inside]
    assert e.text.startswith("scored on the table's 1,000 rows")


def test_what_no_check_reaches_stays_a_difference() -> None:
    e = verdict("mean lift", {"mean lift": 0.2}, {})
    assert not e.checked
    assert e.text == "not accounted for"
    assert not verdict("clean accuracy", {"clean accuracy": -0.1}, {}).checked  # ten deviations of a test set


def test_luck_is_that_of_a_binomial() -> None:
    assert tail(0, 10, 0.5) == pytest.approx(2**-10)
    assert tail(10, 10, 0.5) == pytest.approx(2**-10)
    assert tail(5, 10, 0.5) == pytest.approx(638 / 1024)
    rng = np.random.default_rng(1)
    drawn = (rng.binomial(1_000, 0.94, 200_000) <= 929).mean()
    assert luck(BY_NAME["clean accuracy"], 0.94) == pytest.approx(drawn, abs=0.005)
    assert luck(BY_NAME["mean lift"], 0.2) is None


def test_the_published_shadow_is_near_a_rule_on_v14_and_other_counts_are_not() -> None:
    threshold, p = rule_distance(128, 318, 2.2)
    assert -2.0 < threshold < -1.7
    assert 0.01 < p < 0.1
    assert rule_distance(128, 600, 2.2)[1] < 1e-6


def test_the_rollback_rule_fires_on_nothing_in_small_batches() -> None:
    """Measured before: 48% of runs at 100 rows a batch, 10% at 500, none at 2,000."""
    shares = [idle_rollbacks(0.78, 0.03, rows=rows) for rows in (100, 500, 2_000)]
    assert shares[0] > 0.3
    assert 0.01 < shares[1] < 0.2
    assert shares[2] == 0.0
