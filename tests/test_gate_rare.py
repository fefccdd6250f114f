"""Rare fraud: few frauds say little of their own, and a repair must not wait for what they cannot say."""

import numpy as np

from healer.cells import cells_of
from healer.diagnose import diagnose
from healer.explain import Window, rates_looked_at
from healer.gate import COINCIDENCE, allowed
from healer.knowledge import Knowledge
from shared.alignment import Floats
from shared.profile import profile_from

SHARP = 0


def table(seed: int, n: int) -> tuple[Floats, Floats]:
    """4% frauds, told by two columns of three."""
    rng = np.random.default_rng([seed, 41])
    y = (rng.random(n) < 0.04).astype(np.float64)
    return np.column_stack([rng.normal(1.6 * y, 1), rng.normal(-1.2 * y, 1), rng.standard_normal(n)]), y


def logit(x: Floats) -> Floats:
    rows = np.asarray(x, np.float64)
    return np.asarray(1.6 * rows[:, 0] - 1.2 * rows[:, 1] - 3.8)


P = profile_from(*table(0, 6_000), logit, flag=1 / 6, cut=1 / 6)
K = Knowledge(P)


def drifted(seed: int) -> list[Floats]:
    rows = table(seed, 400)[0]
    rows[:, 1] -= 4
    return list(np.split(rows, 4))


def test_a_shift_is_undone_within_four_batches() -> None:
    assert sum(diagnose(K, drifted(seed)).promote for seed in range(1, 9)) >= 6


def test_fraud_that_became_commoner_at_the_same_time_is_a_coincidence() -> None:
    window = Window(P, table(1, 400)[0])
    rates = np.append(rates_looked_at(P.fraud_rate, 12), [P.fraud_rate])
    given = K, SHARP, cells_of(P, SHARP, window.rows[:, SHARP]), window.score_cells, rates
    free, paying = allowed(*given), allowed(*given, rate_pays=COINCIDENCE)
    usual = [{(i, j) for i, j, k in zip(*found, strict=True) if rates[k] == P.fraud_rate} for found in (free, paying)]
    other = [
        {(i, j, k) for i, j, k in zip(*found, strict=True) if rates[k] != P.fraud_rate} for found in (free, paying)
    ]
    assert usual[0] <= usual[1]
    assert K.still(SHARP) in {i for i, _ in usual[1]}
    assert other[1] < other[0]
