"""Diagnosis: each kind of drift by its name, each impossible one refused, columns put back in order."""

import itertools

import numpy as np
import pytest
from drifting import V14, batches, moved, profile
from hypothesis import given, settings
from hypothesis import strategies as st

from healer.columns import assignment, find_order
from healer.diagnose import Diagnosis, _fallen_as_well, diagnose
from healer.explain import Explanation
from healer.knowledge import Knowledge
from healer.segment import newest_segment
from producer.generator import Generator, Informative
from producer.scenarios import SCENARIOS
from selfheal.gauntlet.world import arrivals
from shared.alignment import Alignment
from shared.profile import profile_from

P = profile()
K = Knowledge(P)


def scene(name: str, blocks: int = 10) -> Diagnosis:
    """What the newest blocks of a scenario's stream are said to be."""
    stream = [a.x.astype(np.float64) for a in arrivals(SCENARIOS[name], 3, K.profile.logit, 10 + blocks)]
    return diagnose(K, stream[-blocks:])


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("S0", "none"), ("S1", "shift"), ("S4", "scale"), ("S5", "units"), ("S7", "fraud-rate"), ("S8", "both"),
        ("S11", "shift"), ("S13", "none"),
    ],
)  # fmt: skip
def test_drift_that_can_be_undone_has_its_name(name: str, verdict: str) -> None:
    found = scene(name)
    assert found.verdict == verdict, found.reason
    assert found.promote == (verdict != "none")


@pytest.mark.parametrize(("name", "verdict"), [("S9", "unexplained"), ("S10", "outage"), ("S12", "unexplained")])
def test_drift_that_needs_labels_is_refused(name: str, verdict: str) -> None:
    found = scene(name)
    assert found.verdict == verdict
    assert not found.promote
    assert found.reason


@given(st.integers(0, 9), st.floats(1.0, 6.0), st.booleans())
@settings(max_examples=12, deadline=None)
def test_a_shift_is_found_where_it_happened(column: int, size: float, down: bool) -> None:
    shift = -size if down else size
    found = diagnose(K, moved(batches(5, 6), shift, 1.0, column))
    if found.alignment is None:
        pytest.fail(f"{shift} on {column}: {found.verdict}, {found.reason}")
    assert found.alignment.moved == [column]
    assert found.alignment.shift[column] == pytest.approx(shift, abs=0.25)


@given(st.sampled_from([10, 100, 1000, 12, 60, 0.1, 0.01]))
@settings(max_examples=7, deadline=None)
def test_a_common_unit_is_named_exactly(factor: float) -> None:
    found = diagnose(K, moved(batches(6, 10), 0.0, factor))
    assert found.verdict == "units"
    assert found.changes[0].scale == factor


def test_the_estimate_of_the_effect_holds_on_fresh_rows() -> None:
    found = scene("S1")
    assert found.effect is not None
    rows = list(arrivals(SCENARIOS["S1"], 50, K.profile.logit, 40))[10:]
    x, y = np.concatenate([a.x for a in rows]).astype(np.float64), np.concatenate([a.y for a in rows])
    assert found.alignment is not None
    accuracy = ((K.profile.logit(found.alignment.undo(x)) > 0) == (y == 1)).mean()
    assert found.effect.after[0] == pytest.approx(accuracy, abs=0.03)
    assert found.effect.gain_worst[0] <= found.effect.gain[0] <= found.effect.gain_best[0]


def test_the_state_in_force_is_kept_while_it_explains_the_rows() -> None:
    shift = [0.0] * 10
    shift[V14] = -2.2
    active = Alignment(tuple(shift), (1.0,) * 10, K.profile.fraud_rate)
    found = diagnose(K, moved(batches(7, 10), -2.2), active)
    assert found.active_fits
    assert found.verdict == "shift"


@pytest.mark.parametrize(("shift", "rate"), [(0.2, 0.15), (0.0, 0.2)], ids=["shift", "fraud-rate"])
def test_a_repair_in_force_stays_while_it_gains_a_little_and_goes_with_the_drift(shift: float, rate: float) -> None:
    """Where the gain is about the least that a repair must bring, rows by rows would put it in force and take it back,
    each time with the news that the drift had ended."""
    rows = moved(batches(6, 10, rate=rate), shift)
    fresh = diagnose(K, rows)
    assert fresh.verdict == "harmless"
    assert fresh.alignment is not None
    again = diagnose(K, rows, fresh.alignment)
    assert again.verdict == ("shift" if shift else "fraud-rate"), again.reason
    assert again.active_fits
    assert diagnose(K, batches(56, 10), fresh.alignment).verdict == "none"


def test_the_newest_segment_begins_where_the_stream_changed() -> None:
    stream = batches(8, 4) + moved(batches(9, 3), -2.2)
    assert newest_segment(stream) == 3
    assert newest_segment(batches(8, 6)) == 6


def test_one_block_is_too_few_to_say() -> None:
    assert diagnose(K, batches(8, 4) + moved(batches(9, 1), -3.5)).blocks == 0


LAWS = Generator(
    tuple(f"F{i}" for i in range(6)),
    tuple(Informative(i, 2.0 * i, 1.0 + 0.3 * i, 2.0 * i - 2, 1.0 + 0.2 * i) for i in range(6)),
)


@given(st.permutations(range(6)))
@settings(max_examples=10, deadline=None)
def test_columns_in_another_order_are_put_back(order: list[int]) -> None:
    rng = np.random.default_rng(1)
    x, y = LAWS.rows(rng, 3_000)
    known = Knowledge(profile_from(x, y, lambda rows: -np.asarray(rows)[:, 0]))
    fed = LAWS.rows(rng, 500)[0][:, order]
    found = find_order(known, fed)
    if order == sorted(order):
        assert found is None
    else:
        assert found == tuple(int(i) for i in np.argsort(order))


def test_columns_that_nobody_can_tell_apart_stay() -> None:
    assert find_order(K, np.concatenate(batches(3, 8))) is None


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_the_assignment_is_the_cheapest(seed: int, d: int) -> None:
    cost = np.random.default_rng(seed).random((d, d))
    best = min(sum(cost[i, p[i]] for i in range(d)) for p in itertools.permutations(range(d)))
    found = assignment(cost)
    assert sum(cost[i, found[i]] for i in range(d)) == pytest.approx(best)


@pytest.mark.parametrize(
    ("shift", "scale", "rival", "refused"),
    [(-2.0, 1.0, 0.04, True), (-2.0, 1.0, 0.12, False), (-2.0, 1.0, None, False), (0.0, 10.0, 0.04, False)],
)
def test_a_fall_of_fraud_that_explains_as_much_forbids_the_repair(
    shift: float, scale: float, rival: float | None, refused: bool
) -> None:
    def alignment(rate: float, a: float = 0.0, b: float = 1.0) -> Alignment:
        return Alignment((*(0.0,) * V14, a, 0.0, 0.0), (*(1.0,) * V14, b, 1.0, 1.0), rate)

    own, other = alignment(P.fraud_rate, shift, scale), None if rival is None else alignment(rival)
    found = Explanation(own, 200.0, (0.0,) * (P.d + 1), {}, other)
    assert (_fallen_as_well(found, P) is not None) == refused
