"""Detection: sums add up, quiet streams are quiet, drift is seen within a few blocks, rare categories are quiet."""

import numpy as np
import pytest
from drifting import V14, batches, moved, profile
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detect import Sums, sums_of, threshold, worst_z, z_scores
from shared.alignment import Alignment, identity
from shared.profile import profile_from

P = profile()
PLAIN = identity(P.d, P.fraud_rate)


def sums(x: np.ndarray, state: Alignment = PLAIN) -> Sums:
    return sums_of(P, P.read(x, state), state.fraud_rate)


@given(st.integers(1, 99))
@settings(max_examples=20, deadline=None)
def test_sums_of_two_parts_are_the_sums_of_the_whole(cut: int) -> None:
    (x,) = batches(0, 1)
    parts = [sums(x[:cut]), sums(x[cut:])]
    assert z_scores(P, parts, P.fraud_rate) == pytest.approx(z_scores(P, [sums(x)], P.fraud_rate), abs=1e-9)


@given(st.integers(0, 9), st.sampled_from([1.8, 10, 1000, 1 / 60]), st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_an_undone_change_reads_as_no_change(column: int, scale: float, shift: float) -> None:
    (x,) = batches(1, 1)
    drifted = moved([x], shift, scale, column)[0].astype(np.float32)
    a, b = [0.0] * P.d, [1.0] * P.d
    a[column], b[column] = shift, scale
    undone = sums(drifted, Alignment(tuple(a), tuple(b), P.fraud_rate))
    assert undone.array() == pytest.approx(sums(x).array(), abs=0.1)


def test_drift_of_the_informative_feature_is_seen_at_once() -> None:
    h = threshold(P)
    assert worst_z(P, [sums(moved(batches(2, 1), -2.2)[0])], P.fraud_rate) > h
    assert worst_z(P, [sums(b) for b in moved(batches(2, 3), 0, 1.6)], P.fraud_rate) > h


def test_quiet_streams_stay_below_the_threshold() -> None:
    h = threshold(P, quiet_batches=10_000)
    stream = [sums(x) for x in batches(3, 300)]
    over = [k for k in range(10, 300) if worst_z(P, stream[k - 9 : k + 1], P.fraud_rate) > h]
    assert len(over) <= 3


def test_a_longer_wait_between_false_alarms_has_a_higher_threshold() -> None:
    assert 3 < threshold(P, quiet_batches=1_000) < threshold(P, quiet_batches=100_000) < 7


def test_two_rows_of_a_rare_category_are_no_alarm() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(4_000) % 8 == 0
    x = np.column_stack([rng.standard_normal(4_000), rng.random(4_000) < 0.001])
    rare = profile_from(x, y, lambda rows: np.asarray(rows)[:, 0])
    batch = np.column_stack([rng.standard_normal(100), np.arange(100) < 2])
    block = sums_of(rare, rare.read(batch, identity(2, rare.fraud_rate)), rare.fraud_rate)
    assert z_scores(rare, [block], rare.fraud_rate)[1].max() < 3


def test_the_state_with_the_moved_rate_explains_the_moved_rate() -> None:
    stream = batches(4, 5, rate=0.4)
    state = Alignment(PLAIN.shift, PLAIN.scale, 0.4)
    assert worst_z(P, [sums(x, state) for x in stream], 0.4) < 4.5 < worst_z(P, [sums(x) for x in stream], P.fraud_rate)


def test_v14_is_the_informative_one() -> None:
    assert int(P.separation.argmax()) == V14
