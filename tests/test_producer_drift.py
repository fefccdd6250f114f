"""What each drift step does to means and rates, when, and how it is written on the command line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.batch import Batch
from producer.drift import (
    Adapt,
    Correlation,
    Drifted,
    Mechanism,
    Mimic,
    Outage,
    Prior,
    Profile,
    Scale,
    Shift,
    Step,
    Unit,
    check,
    rows_at,
)  # fmt: skip
from producer.drift_text import parse
from producer.generator import NAMES, REFERENCE, Generator, Rows
from producer.scenarios import SCENARIOS, find
from producer.sources import Synthetic
from shared.errors import OperatorError

V14, V10 = NAMES.index("V14"), NAMES.index("V10")
N = 20_000


def rows_of(*steps: Step, k: int = 1, generator: Generator = REFERENCE) -> tuple[Rows, Rows]:
    """Normal and fraud rows of batch k, 20,000 in all: means are within .04 (normals) and .08 (frauds)."""
    parts = [Synthetic(seed, 1_000, steps, generator).batch(k) for seed in range(N // 1_000)]
    x = np.concatenate([p.rows for p in parts])
    y = np.concatenate([p.labels for p in parts if p.labels is not None])
    return x[y == 0], x[y == 1]


def near(value: float, wanted: float, by: float = 0.08) -> bool:
    return abs(value - wanted) < by


def test_without_a_step_the_rows_follow_the_reference() -> None:
    normal, fraud = rows_of()
    assert near(normal[:, V14].mean(), 0)
    assert near(fraud[:, V14].mean(), -2.5)
    assert near(fraud[:, V14].std(), 0.8)
    assert near(len(fraud) / N, 0.15, 0.01)


@pytest.mark.parametrize(
    ("only", "normal_by", "fraud_by"), [("all", -2.2, -2.2), ("normal", -2.2, 0), ("fraud", 0, -2.2)]
)
def test_shift_moves_the_named_class(only: str, normal_by: float, fraud_by: float) -> None:
    (step,) = parse([f"shift:V14:-2.2:class={only}"])
    normal, fraud = rows_of(step)
    assert near(normal[:, V14].mean(), normal_by)
    assert near(fraud[:, V14].mean(), -2.5 + fraud_by)
    assert near(normal[:, V10].mean(), 0)


def test_scale_keeps_its_pivot() -> None:
    normal, _ = rows_of(Scale("V14", 1.6, pivot=5.0))
    assert near(normal[:, V14].mean(), 5 - 1.6 * 5)
    assert near(normal[:, V14].std(), 1.6)


def test_unit_multiplies_and_outage_is_constant() -> None:
    normal, fraud = rows_of(Unit("V14", 10), Outage("V10", 3.5))
    clean_normal, clean_fraud = rows_of()
    np.testing.assert_allclose(fraud[:, V14], 10 * clean_fraud[:, V14])
    assert set(normal[:, V10]) == {3.5}
    others = [c for c in range(len(NAMES)) if c not in (V14, V10)]
    np.testing.assert_array_equal(normal[:, others], clean_normal[:, others])


def test_prior_moves_the_fraud_rate_alone() -> None:
    normal, fraud = rows_of(Prior(0.4))
    assert near(len(fraud) / N, 0.4, 0.015)
    assert near(fraud[:, V14].mean(), -2.5)
    assert near(normal[:, V14].mean(), 0)


def test_mechanism_hides_fraud_here_and_shows_it_there() -> None:
    normal, fraud = rows_of(Mechanism("V14", "V10", 3.0))
    assert near(fraud[:, V14].mean(), 0)
    assert near(fraud[:, V14].std(), 1)
    assert near(fraud[:, V10].mean(), 3)
    assert near(normal[:, V10].mean(), 0)


def test_adapt_moves_the_mean_of_fraud() -> None:
    normal, fraud = rows_of(Adapt("V14", -1.0))
    assert near(fraud[:, V14].mean(), -1)
    assert near(fraud[:, V14].std(), 0.8)
    assert near(normal[:, V14].mean(), 0)


def test_correlation_leaves_means_deviations_and_the_informative_feature_alone() -> None:
    normal, _ = rows_of(Correlation(0.8))
    c = np.corrcoef(normal, rowvar=False)
    assert near(c[0, 1], 0.8)
    assert near(c[0, 2], 0.64)
    assert near(c[6, 8], 0.8)  # neighbours among noise, with V14 between them
    assert near(c[6, V14], 0)
    assert np.abs(normal.std(axis=0) - 1).max() < 0.05


def test_mimics_look_like_fraud_and_are_none() -> None:
    (step,) = parse(["mimic:0.4"])
    assert step == Mimic(0.4)
    normal, fraud = rows_of(step)
    mixed = 0.4 * -2.5
    assert near(normal[:, V14].mean(), mixed)
    assert near(fraud[:, V14].mean(), -2.5)
    assert near(len(fraud) / N, 0.15, 0.01)
    assert near(normal[:, V10].mean(), 0)


def test_steps_compose_in_order() -> None:
    x = np.full((3, 1), 2.0)
    assert rows_at((Shift("a", 1), Unit("a", 10)), ["a"], 1, x, None)[0, 0] == 30
    assert rows_at((Unit("a", 10), Shift("a", 1)), ["a"], 1, x, None)[0, 0] == 21
    assert x[0, 0] == 2.0


def test_profiles() -> None:
    sudden, gradual = Profile(first=11), Profile(first=11, over=30)
    assert [sudden.weight(k) for k in (1, 10, 11, 999)] == [0, 0, 1, 1]
    assert [gradual.weight(k) for k in (10, 11, 25, 40, 41)] == [0, 1 / 30, 0.5, 1, 1]
    recurring = Profile(first=11, every=10)
    assert [recurring.weight(k) for k in (10, 11, 20, 21, 30, 31)] == [0, 1, 1, 0, 0, 1]
    assert [Profile(first=2, until=3).weight(k) for k in (1, 2, 3, 4)] == [0, 1, 1, 0]


@given(st.builds(Profile, st.integers(1, 50), st.integers(1, 50)), st.integers(1, 200))
def test_a_gradual_drift_only_grows_and_ends_at_one(profile: Profile, k: int) -> None:
    assert 0 <= profile.weight(k) <= profile.weight(k + 1) <= 1
    assert profile.weight(profile.first + profile.over - 1) == 1
    assert profile.weight(profile.first - 1) == 0


def test_gradual_steps_go_half_way() -> None:
    half = Profile(first=1, over=2)
    normal, fraud = rows_of(Shift("V14", -2, profile=half), Prior(0.35, half))
    assert near(normal[:, V14].mean(), -1)
    assert near(len(fraud) / N, 0.25, 0.015)


def test_a_batch_has_the_same_rows_whatever_came_before() -> None:
    drifted = Synthetic(7, 50, (Shift("V14", -2.2, profile=Profile(first=3)),))
    whole = [b for _, b in zip(range(4), drifted.batches(), strict=False)]
    np.testing.assert_array_equal(whole[3].rows, drifted.batch(4).rows)
    np.testing.assert_array_equal(whole[1].rows, Synthetic(7, 50).batch(2).rows)
    assert not np.array_equal(whole[0].rows, whole[1].rows)
    assert not np.array_equal(whole[0].rows, Synthetic(8, 50).batch(1).rows)


def test_the_written_form() -> None:
    assert parse(
        ["shift:V14:-2.2:class=normal,from=11,over=30", "unit:V14:10:every=10", "prior:0.4", "outage:V14:0",
         "scale:V14:1.6:pivot=-1", "mechanism:V14:V10:3:from=2,until=9", "adapt:V14:-1", "correlation:0.8"]
    ) == (
        Shift("V14", -2.2, "normal", Profile(11, 30)), Unit("V14", 10, Profile(every=10)), Prior(0.4),
        Outage("V14", 0), Scale("V14", 1.6, -1), Mechanism("V14", "V10", 3, Profile(2, until=9)), Adapt("V14", -1),
        Correlation(0.8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        ("bogus:1", "'bogus' is no kind of drift"),
        ("", "'' is no kind"),
        ("shift:V14", "shift needs 2 parts"),
        ("shift::2", "shift needs 2 parts"),
        ("shift:V14:x", "amount 'x' is not a number"),
        ("shift:V14:nan", "amount 'nan' must be finite"),
        ("shift:V14:1:from=3:more", "'more' is one part too many"),
        ("shift:V14:1:pivot=3", "'pivot=3' is no option of shift"),
        ("shift:V14:1:class=both", "class=both: use all, normal or fraud"),
        ("shift:V14:1:from=0", "from=0: give a whole number"),
        ("shift:V14:1:from=2,from=3", "from is given twice"),
        ("shift:V14:1:over=3,every=2", "do not go together"),
        ("shift:V14:1:from=5,until=4", "until=4 lies before"),
        ("unit:V14:10:over=3", "unit happens at once"),
        ("scale:V14:0", "factor '0' must be other than 0"),
        ("prior:1.2", "rate '1.2' must be from 0 to 1"),
        ("correlation:1", "between -1 and 1"),
    ],
)
def test_a_mistake_is_named_and_the_grammar_shown(text: str, blamed: str) -> None:
    with pytest.raises(OperatorError) as raised:
        parse([text])
    assert blamed in str(raised.value)
    assert f"--drift {text}" in str(raised.value)
    assert "mechanism:FEATURE:OTHER:MEAN" in str(raised.value)


@given(st.text(alphabet="shiftuncale:=,.-0123456789V", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        steps = parse([text])
    except OperatorError:
        return
    assert len(steps) == 1


class Plain:
    """A source of one batch of ones, without labels."""

    name, features, labelled = "plain", ("a", "b"), False

    def batches(self):
        yield Batch(np.ones((2, 2)))


def test_row_steps_work_on_any_source() -> None:
    (batch,) = Drifted(Plain(), (Shift("b", 4), Unit("a", 10))).batches()
    assert batch.rows.tolist() == [[10, 5], [10, 5]]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Shift("c", 1), "no feature 'c' here; there are a, b"),
        (Shift("a", 1, "fraud"), "class=fraud needs labels"),
        (Prior(0.4), "only the synthetic source"),
        (Mechanism("a", "b", 1), "only the synthetic source"),
        (Correlation(0.4), "only the synthetic source"),
    ],
)
def test_a_step_that_the_source_cannot_take_is_refused_at_the_start(step: Step, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        Drifted(Plain(), (step,))


def test_a_generator_step_needs_an_informative_feature() -> None:
    with pytest.raises(OperatorError, match="V9 tells nothing about fraud in this generator; V14 does"):
        check((Adapt("V9", 1),), NAMES, labelled=True, generator=REFERENCE)


def test_every_scenario_is_clean_first_and_then_does_what_it_says() -> None:
    assert [s for s in SCENARIOS if s != "reference"] == [f"S{i}" for i in range(16)]
    for name, scenario in SCENARIOS.items():
        stream = Synthetic(3, 200, scenario.steps, scenario.generator, scenario.exact)
        clean = Synthetic(3, 200, (), scenario.generator, scenario.exact)
        assert np.array_equal(stream.batch(10).rows, clean.batch(10).rows) == (name != "reference")
        assert np.array_equal(stream.batch(40).rows, clean.batch(40).rows) == (name == "S0")


def test_the_reference_scenario_moves_normals_from_the_first_batch() -> None:
    normal, fraud = rows_of(*find("reference", 3.5).steps)
    assert near(normal[:, V14].mean(), -3.5)
    assert near(fraud[:, V14].mean(), -2.5)
    with pytest.raises(OperatorError, match="fixed strength"):
        find("S1", 3.5)
    with pytest.raises(OperatorError, match="no scenario 'S16'; there are reference, S0"):
        find("S16")


def test_exact_batches_have_their_share_of_frauds() -> None:
    labels = [Synthetic(1, 100, exact=True).batch(k).labels for k in range(1, 6)]
    assert [int(y.sum()) for y in labels if y is not None] == [15] * 5
