"""Diagnosis where fraud is rare (.3%, 30 columns, as on a card table): what few frauds cannot tell is not read into
them, and limits follow what decisions are worth there."""

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
import pytest

from healer.diagnose import diagnose, yardstick
from healer.knowledge import Knowledge
from shared.alignment import Floats, log_odds
from shared.bundle import Costs
from shared.profile import Profile, profile_from
from shared.scores import cost_threshold

RATE, COLUMNS, APART = 0.003, 30, -3.0
TELLS, NOISE = 4, 11  # columns: fraud lies APART in one; the others tell nothing


def rows(seed: int, n: int, rate: float = RATE) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([seed, 30])
    y = rng.random(n) < rate
    x = rng.standard_normal((n, COLUMNS))
    x[:, TELLS] += APART * y
    return x, y.astype(np.float64)


def logit(x: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(APART * np.asarray(x, np.float64)[:, TELLS] - APART**2 / 2 + log_odds(RATE))


@functools.cache
def knowledge(amounts: bool = False) -> Knowledge:
    """amounts: a missed fraud costs 120 false alarms, and flags follow that; else as the generator, flag at .5."""
    costs = Costs(missed_fraud=120.0) if amounts else Costs()
    profile = profile_from(*rows(0, 20_000), logit, costs=costs, flag=cost_threshold(costs) if amounts else 0.5)
    return Knowledge(profile)


def blocks(seed: int, *, rate: float = RATE, n: int = 100, column: int = TELLS, scale: float = 1.0) -> list[Floats]:
    x = rows(seed, 10 * n, rate)[0]
    x[:, column] *= scale
    return list(np.split(x, 10))


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_quiet_stream_is_left_alone(seed: int) -> None:
    found = diagnose(knowledge(), blocks(seed))
    assert (found.verdict, found.alignment) == ("none", None)


@pytest.mark.parametrize("amounts", [False, True])
@pytest.mark.parametrize(("column", "scale"), [(TELLS, 10.0), (TELLS, 100.0), (TELLS, 0.01), (NOISE, 10.0)])
def test_a_field_in_another_unit_is_named_and_put_back(column: int, scale: float, amounts: bool) -> None:
    for seed in (6, 7, 8):
        found = diagnose(knowledge(amounts), blocks(seed, column=column, scale=scale))
        assert (found.verdict, found.promote) == ("units", True), found.reason
        assert [(c.feature, c.scale) for c in found.changes] == [(column, scale)]
        assert found.fraud_rate == knowledge().profile.fraud_rate


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fraud_that_trebles_is_told_by_its_rate(seed: int) -> None:
    found = diagnose(knowledge(True), blocks(seed, rate=0.01, n=1_000))
    assert "fraud-rate" in (
        found.verdict,
        *found.reason.replace(",", "").split(),
    )  # in force, or refused as what it would read as
    assert found.fraud_rate is not None
    assert 0.006 < found.fraud_rate < 0.016


def test_columns_that_tell_nothing_follow_one_law() -> None:
    profile: Profile = knowledge().profile
    assert not profile.one_law[TELLS]
    assert not profile.one_law[profile.d]
    assert profile.one_law.sum() >= COLUMNS - 4
    normal, fraud = profile.class_cdf(NOISE, np.array([0.0]))
    assert normal == fraud
    assert profile.known(NOISE, np.array([RATE, 0.5])).tolist() == [profile.n, profile.n]
    assert profile.known(TELLS, np.array([0.5]))[0] < 300


def test_limits_follow_what_deciding_blindly_costs() -> None:
    plain, paid = knowledge().profile, knowledge(True).profile
    rate = plain.fraud_rate
    assert plain.blind_cost == pytest.approx(5 * rate)
    assert paid.blind_cost == pytest.approx(120 * rate)
    everybody = dataclasses.replace(paid, costs=Costs(missed_fraud=1_000.0))
    assert everybody.blind_cost == pytest.approx(1 - rate), "flagging everybody is the cheaper way"
    assert yardstick(plain, (rate, 5 * rate)) == [pytest.approx((0.15, 0.75))]
    assert yardstick(paid, (0.5, 120 * rate)) == [pytest.approx((0.0, 0.75))], "flags follow costs"
