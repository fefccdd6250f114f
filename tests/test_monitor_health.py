"""When the health window asks for a rollback, and what the registry gives back."""

from __future__ import annotations

import pytest

from monitor import health
from monitor.health import Entry, Health, Score, best, decay, emptied, surplus, updated


def after(*f1: float, accuracy: float = 0.7, size: int = 5) -> Health:
    state = Health()
    for value in f1:
        state = updated(state, Score(value, accuracy), size)
    return state


def test_the_first_score_is_the_baseline_for_good() -> None:
    state = emptied(after(0.5, 0.1, 0.1))
    assert state.baseline == Score(0.5, 0.7)
    assert state.window == []
    assert updated(state, Score(0.9, 0.9), 5).baseline == Score(0.5, 0.7)


def test_nothing_is_judged_before_three_updates() -> None:
    assert decay(after(0.5, 0.0), 0.08, 0.1) is None
    assert decay(after(0.5, 0.0, 0.0), 0.08, 0.1) is not None


@pytest.mark.parametrize(("f1", "falls"), [((0.5, 0.4, 0.36), False), ((0.5, 0.4, 0.35), True)])
def test_mean_f1_more_than_the_drop_below_the_baseline(f1: tuple[float, ...], falls: bool) -> None:
    found = decay(after(*f1), 0.08, 1.0)
    assert (found is not None) == falls


def test_accuracy_has_a_drop_of_its_own() -> None:
    state = after(0.5, accuracy=0.9)
    for _ in range(4):
        state = updated(state, Score(0.5, 0.7), 5)
    found = decay(state, 0.08, 0.10)
    assert found is not None
    assert (found.what, found.drop, found.baseline) == ("accuracy", 0.10, Score(0.5, 0.9))
    assert (found.mean_f1, found.mean_accuracy) == pytest.approx((0.5, 0.74))


def test_the_window_holds_the_newest() -> None:
    assert [s.f1 for s in after(0.1, 0.2, 0.3, 0.4, size=3).window] == [0.2, 0.3, 0.4]


def entry(version: str, batch_idx: int, f1: float) -> Entry:
    return Entry(version=version, batch_idx=batch_idx, f1=f1, accuracy=0.5)


def test_best_is_the_highest_f1_and_of_equals_the_newest() -> None:
    assert best([]) is None
    assert best([entry("v3", 1, 0.4), entry("v5", 2, 0.4), entry("v7", 3, 0.1)]) == entry("v5", 2, 0.4)


def test_the_registry_forgets_the_worst_but_never_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REGISTRY_MAX", 2)
    three = [entry("v3", 1, 0.4), entry("v5", 2, 0.3), entry("v7", 3, 0.1)]
    assert surplus(three[:2]) is None
    assert surplus(three) == entry("v5", 2, 0.3)
