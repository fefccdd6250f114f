"""Diagnosis on columns of few values, marks and small counts: moved is what carries values to values, nothing else."""

import numpy as np
import pytest
from test_diagnose_table import COUNT, FLAG, K, P, blocks

from healer.atoms import absent, carrying_few, steps
from healer.diagnose import diagnose
from healer.knowledge import NUDGES, Knowledge
from shared.alignment import Floats
from shared.profile import profile_from

LAW = (np.array([0.36, 0.30, 0.06, 0.12, 0.16]), np.array([0.10, 0.05, 0.15, 0.30, 0.40]))  # of 0..4, in either class


def moved(seed: int, shift: float, scale: float, column: int = COUNT) -> list[Floats]:
    """As the wire holds them: float32."""
    drifted = blocks(seed)
    for b in drifted:
        b[:, column] = (shift + scale * b[:, column]).astype(np.float32)
    return drifted


@pytest.mark.parametrize("seed", [6, 7, 8])
@pytest.mark.parametrize(
    ("shift", "scale", "verdict"),
    [(4, 1, "shift"), (1, 1, "shift"), (3.37, 1, "shift"), (0, 10, "units"), (0, 0.1, "units"), (0, 1.7, "scale"),
     (3, 2, "scale")],
)  # fmt: skip
def test_what_carries_values_to_values_is_put_back(seed: int, shift: float, scale: float, verdict: str) -> None:
    found = diagnose(K, moved(seed, shift, scale))
    assert (found.verdict, found.promote) == (verdict, True), found.reason
    assert found.alignment is not None
    assert found.alignment.moved == [COUNT]
    assert found.alignment.shift[COUNT] == pytest.approx(shift, abs=1e-5)
    assert found.alignment.scale[COUNT] == pytest.approx(scale, rel=1e-5)


def test_values_that_are_commoner_than_before_are_no_shift() -> None:
    drifted = blocks(6)
    rng = np.random.default_rng(6)
    for b in drifted:
        b[:, COUNT] = rng.poisson(6, len(b))
    found = diagnose(K, drifted)
    assert found.verdict == "unexplained"
    assert COUNT not in [c.feature for c in found.changes]


@pytest.mark.parametrize(("shift", "scale"), [(1, 1), (0, 10), (1, -1)])
def test_two_values_are_never_moved(shift: float, scale: float) -> None:
    """Any two could have become any other two."""
    found = diagnose(K, moved(6, shift, scale, FLAG))
    assert not found.promote
    assert FLAG not in [c.feature for c in found.changes]


def marks(seed: int, n: int, missing: tuple[int, ...] = ()) -> tuple[Floats, Floats]:
    """A mark of 0..4, of which some stay away, and a column that tells frauds."""
    rng = np.random.default_rng([seed, 3])
    y = (rng.random(n) < 0.12).astype(np.float64)
    left = [np.where(np.isin(np.arange(5), missing), 0, law) for law in LAW]
    marks = [rng.choice(5, n, p=law / law.sum()) for law in left]
    return np.column_stack([np.where(y == 1, marks[1], marks[0]), rng.normal(1.5 * y, 1)]), y


def logit(x: Floats) -> Floats:
    rows = np.asarray(x, np.float64)
    ratio = np.log(LAW[1] / LAW[0])
    return np.asarray(np.interp(rows[:, 0], np.arange(5), ratio) + 1.5 * rows[:, 1] - 3.1)


MARKS = profile_from(*marks(0, 4_000), logit)
KNOWN = Knowledge(MARKS)


@pytest.mark.parametrize("missing", [(0, 4), (1, 3), (2,), (0, 1)])
def test_marks_that_stay_away_are_no_scale(missing: tuple[int, ...]) -> None:
    """1, 2, 3 may well be made of 0, 2, 4: but then what was 1 and 3 had to arrive too."""
    found = diagnose(KNOWN, list(np.split(marks(1, 1_000, missing)[0], 10)))
    assert found.verdict == "unexplained"
    assert not found.promote


def test_what_should_have_arrived_is_counted() -> None:
    values = marks(1, 1_000, (0, 4))[0][:, 0]
    shifts, scales = np.array([1.0, 0.0]), np.array([0.5, 1.0])
    rows = absent(MARKS, 0, values, shifts, scales, np.array([0.12, 0.5]))
    mixed = [(1 - rate) * LAW[0] + rate * LAW[1] for rate in (0.12, 0.5)]
    for at, law in enumerate(mixed):
        assert rows[at] == pytest.approx([1_000 * (law[1] + law[3]), 1_000 * (law[0] + law[4])], rel=0.1)


def test_noise_carries_nothing() -> None:
    noise = np.random.default_rng(2).normal(3, 2, 800)
    assert not carrying_few(P, COUNT, noise)[0].size


def test_a_class_moves_by_whole_steps() -> None:
    assert steps(MARKS, 0, 20).tolist() == [-3, -2, -1, 0, 1, 2, 3]  # by 4, only what was 0 would be a mark still
    assert steps(MARKS, 0, 1).tolist() == [-1, 0, 1]
    nudges = KNOWN.nudges(0) * MARKS.deviation[0]
    assert nudges == pytest.approx([-3, -2, -1, 0, 1, 2, 3])
    assert KNOWN.nudges(1) is NUDGES
