"""A column of mostly one value in another's place looks as if that one had gone dark."""

import numpy as np
import pytest

from healer.diagnose import diagnose
from healer.knowledge import Knowledge
from shared.alignment import Floats
from shared.profile import profile_from

CLAIMS, AMOUNT, NOISE = range(3)


def table(seed: int, n: int) -> tuple[Floats, Floats]:
    """Earlier claims, of which most people have none; an amount, higher in fraud; noise."""
    rng = np.random.default_rng([seed, 51])
    y = (rng.random(n) < 0.12).astype(np.float64)
    claims = np.where(rng.random(n) < 0.65 - 0.4 * y, 0.0, np.round(rng.gamma(2, 9, n)))
    return np.column_stack([claims, np.exp(rng.normal(3 + 1.4 * y, 0.7)), rng.standard_normal(n)]), y


def logit(x: Floats) -> Floats:
    rows = np.asarray(x, np.float64)
    amount = np.log(np.maximum(rows[:, AMOUNT], 0.1))
    return np.asarray(2.6 * (amount - 3) + 1.2 * (rows[:, CLAIMS] > 0) - 4.5)


K = Knowledge(profile_from(*table(0, 5_000), logit))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_traded_columns_are_no_outage(seed: int) -> None:
    rows = table(seed, 800)[0][:, [AMOUNT, CLAIMS, NOISE]]
    found = diagnose(K, list(np.split(rows, 8)))
    assert (found.verdict, found.promote) == ("columns-swapped", True), found.reason
    assert found.alignment is not None
    assert found.alignment.order == (AMOUNT, CLAIMS, NOISE)


@pytest.mark.parametrize("share", [0.6, 1.0])
@pytest.mark.parametrize("value", [0.0, 20.0])
def test_a_column_of_which_most_is_gone_is_an_outage(share: float, value: float) -> None:
    rows = table(4, 800)[0]
    rows[np.random.default_rng(4).random(len(rows)) < share, AMOUNT] = value
    found = diagnose(K, list(np.split(rows, 8)))
    assert (found.verdict, found.worst_column, found.promote) == ("outage", AMOUNT, False), found.reason
