"""Diagnosis on columns of whole numbers, far more than a few: rows undone lie on numbers that the network knows."""

import numpy as np
import pytest

from healer.atoms import carrying, has_atoms
from healer.diagnose import diagnose
from healer.knowledge import Knowledge
from shared.alignment import Floats
from shared.profile import profile_from

DELAY, NOISE = 0, 1


def table(seed: int, n: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([seed, 31])
    y = (rng.random(n) < 0.15).astype(np.float64)
    return np.column_stack([np.round(rng.normal(30 + 24 * y, 9)), rng.standard_normal(n)]), y


def logit(x: Floats) -> Floats:
    """Of a network that knows whole numbers alone, as a tree or a deep one may: half a step aside, it errs."""
    delay = np.asarray(x, np.float64)[:, DELAY]
    return 0.3 * (delay - 42) - 6.0 * (np.abs(delay - np.round(delay)) > 0.01)


P = profile_from(*table(0, 5_000), logit)
K = Knowledge(P)


def drifted(seed: int, shift: float, scale: float) -> list[Floats]:
    rows = table(seed, 800)[0]
    rows[:, DELAY] = shift + scale * rows[:, DELAY]
    return list(np.split(rows.astype(np.float32).astype(np.float64), 8))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shift", [17.0, -17.0, 25.5])
def test_a_shift_of_whole_numbers_is_put_back_exactly(seed: int, shift: float) -> None:
    found = diagnose(K, drifted(seed, shift, 1.0))
    assert found.alignment is not None
    assert found.promote
    assert found.alignment.shift[DELAY] == pytest.approx(shift, abs=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_scale_of_whole_numbers_is_put_back_exactly(seed: int) -> None:
    found = diagnose(K, drifted(seed, 0.0, 1.6))
    assert found.alignment is not None
    assert found.promote
    assert found.alignment.scale[DELAY] == pytest.approx(1.6, rel=1e-5)
    assert found.alignment.shift[DELAY] == 0


def test_a_column_that_seldom_repeats_has_no_atoms() -> None:
    assert has_atoms(P, DELAY)
    assert not has_atoms(P, NOISE)


@pytest.mark.parametrize("about", [None, (0.0, 0.0)])
def test_numbers_that_meet_nothing_are_carried_nowhere(about: tuple[float, float] | None) -> None:
    values = 17 + 30 * np.random.default_rng(1).random(500)
    assert not carrying(P, DELAY, values, (17.2, 1.0), about, np.array([10.0]))[0].size
