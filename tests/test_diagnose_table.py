"""Diagnosis on columns that are no bell curves: skewed, counts, one-hot, heavy-tailed."""

import numpy as np
import pytest

from healer.diagnose import diagnose
from healer.knowledge import Knowledge
from monitor.detect import sums_of, threshold, worst_z
from shared.alignment import Floats, identity
from shared.profile import profile_from

AMOUNT, COUNT, FLAG, RARE, TAIL, NOISE = range(6)


def table(seed: int, n: int) -> tuple[Floats, Floats]:
    """Log-normal amount (higher in fraud), Poisson count, 30% and 0.5% flags, t with 3 degrees of freedom, noise."""
    rng = np.random.default_rng([seed, 20])
    y = (rng.random(n) < 0.12).astype(np.float64)
    x = np.column_stack(
        [
            np.round(np.exp(rng.normal(3 + 1.6 * y, 0.8)), 2),
            rng.poisson(3 + 2 * y),
            rng.random(n) < 0.3 + 0.3 * y,
            rng.random(n) < 0.005,
            rng.standard_t(3, n) - 1.5 * y,
            rng.standard_normal(n),
        ]
    ).astype(np.float64)
    return x, y


def logit(x: Floats) -> Floats:
    rows = np.asarray(x, np.float64)
    amount = np.log(np.maximum(rows[:, AMOUNT], 0.01))
    return 2.4 * (amount - 3) - 4.5 + 0.5 * (rows[:, COUNT] - 3) + rows[:, FLAG] - np.tanh(rows[:, TAIL])


P = profile_from(*table(0, 5_000), logit)
K = Knowledge(P)


def blocks(seed: int, count: int = 8) -> list[Floats]:
    return list(np.split(table(seed, 100 * count)[0], count))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_undrifted_table_is_left_alone(seed: int) -> None:
    assert diagnose(K, blocks(seed)).verdict in ("none", "harmless")


def test_an_undrifted_table_raises_no_alarm() -> None:
    h, plain = threshold(P), identity(P.d, P.fraud_rate)
    stream = [sums_of(P, P.read(b, plain), P.fraud_rate) for b in blocks(4, 100)]
    assert sum(worst_z(P, stream[max(k - 9, 0) : k + 1], P.fraud_rate) > h for k in range(100)) <= 1


@pytest.mark.parametrize("factor", [100.0, 0.01, 1000.0])
def test_money_in_another_unit_is_put_back_exactly(factor: float) -> None:
    drifted = blocks(5)
    for b in drifted:
        b[:, AMOUNT] *= factor
    found = diagnose(K, drifted)
    assert found.verdict == "units"
    assert found.promote
    assert found.changes[0].feature == AMOUNT
    assert found.changes[0].scale == factor


@pytest.mark.parametrize("column", [AMOUNT, COUNT, FLAG, TAIL])
def test_a_column_that_went_dark_is_an_outage(column: int) -> None:
    drifted = blocks(7)
    for b in drifted:
        b[:, column] = 0.0
    found = diagnose(K, drifted)
    assert found.verdict == "outage"
    assert found.worst_column == column
