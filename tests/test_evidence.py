"""The sequential test: closed form and quadrature agree, chance alone seldom wins, "never fraud" does not."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.evidence import Detector, Tally, counted, fed, level, log_evidence, log_evidence_of_counts
from shared.bundle import Costs

EQUAL = Costs(false_alarm=1.0, missed_fraud=1.0)
few = st.integers(0, 300)


@given(few, few, few, few)
@settings(deadline=None, max_examples=50)
def test_quadrature_is_the_closed_form_for_equal_costs(a: int, b: int, c: int, d: int) -> None:
    closed = log_evidence_of_counts(a + c, b + d)
    assert log_evidence(Tally(a, b, c, d), EQUAL) == pytest.approx(closed, abs=1e-6)


@given(few, few, few, few)
@settings(deadline=None, max_examples=50)
def test_one_more_win_never_lowers_the_evidence(a: int, b: int, c: int, d: int) -> None:
    before = log_evidence(Tally(a, b, c, d), Costs())
    assert log_evidence(Tally(a + 1, b, c, d), Costs()) >= before
    assert log_evidence(Tally(a, b, c, d + 1), Costs()) <= before + 1e-9


def test_no_rows_are_no_evidence() -> None:
    assert log_evidence(Tally(), Costs()) == pytest.approx(0, abs=1e-12)


def test_ten_thousand_rows_stay_finite_and_exact() -> None:
    assert log_evidence(Tally(2600, 2400, 2500, 2500), EQUAL) == pytest.approx(
        log_evidence_of_counts(5100, 4900), abs=1e-6
    )


def test_never_fraud_does_not_win_where_fraud_is_dear() -> None:
    """It is right more often (8 of 10 rows), and costs more."""
    tally = Tally(won_fraud=0, lost_fraud=100, won_normal=400, lost_normal=0)
    assert log_evidence_of_counts(400, 100) > math.log(20)
    assert log_evidence(tally, Costs(false_alarm=1, missed_fraud=5)) < 0


def test_chance_alone_seldom_wins_however_often_one_looks() -> None:
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(100):
        tally = Tally()
        for _ in range(40):
            y = (rng.random(20) < 0.15).astype(int)
            one, other = rng.random(20) < 0.5, rng.random(20) < 0.5
            tally = counted(tally, one, other, y)
            if log_evidence(tally, Costs()) >= math.log(20):
                passed += 1
                break
    assert passed <= 0.05 * 100


def test_a_better_candidate_wins_and_the_reverse_loses() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(2000) < 0.15).astype(int)
    good, bad = (rng.random(2000) < 0.1) ^ (y == 1), (rng.random(2000) < 0.3) ^ (y == 1)
    tally = counted(Tally(), good, bad, y)
    assert log_evidence(tally, Costs()) > math.log(20)
    assert log_evidence(tally.reversed(), Costs()) < 0
    assert tally.rows == int((good != bad).sum())


@given(st.lists(st.sampled_from([0.0, 0.02, 0.05, 0.2, 1.0]), max_size=60))
@settings(deadline=None, max_examples=50)
def test_the_detector_is_the_sum_of_the_wealth_of_all_who_began(values: list[float]) -> None:
    limit, detector = 0.05, Detector()
    for x in values:
        detector = fed(detector, x, limit)
    by_hand = [
        sum(math.prod(1 + bet * (x / limit - 1) for x in values[k:]) for k in range(len(values)))
        for bet in (0.05, 0.15, 0.4, 0.9)
    ]
    assert level(detector) == pytest.approx(sum(by_hand) / 4)


def alarm_after(rng: np.random.Generator, rate: float, batches: int, level_at: float = 500) -> int:
    """Batches until the detector passes; the limit is a mean of .05."""
    detector = Detector()
    for k in range(1, batches + 1):
        detector = fed(detector, float((rng.random(100) < rate).mean()), 0.05)
        if level(detector) >= level_at:
            return k
    return batches


def test_the_detector_is_rarely_wrong_at_its_limit_and_quick_above_it() -> None:
    """At a limit of 500 the mean time to a false alarm is at least 500 batches, at the very edge of what is allowed."""
    rng = np.random.default_rng(2)
    quiet = [alarm_after(rng, 0.05, 1_500) for _ in range(40)]
    assert np.mean(quiet) >= 500
    assert max(alarm_after(rng, 0.15, 100) for _ in range(40)) <= 15
