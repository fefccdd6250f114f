"""Diagnosis on columns of mostly one value, as counts of rare things and amounts seldom paid are."""

import numpy as np
import numpy.typing as npt
import pytest

from healer.atoms import unseen
from healer.diagnose import Diagnosis, diagnose
from healer.knowledge import Knowledge
from shared.alignment import Floats
from shared.profile import profile_from

COUNT, AMOUNT, PLAIN = range(3)
USUAL = 5.0  # what an amount mostly is


def rows(seed: int, n: int, some: float = 0.2, law: float = 8.0) -> tuple[Floats, Floats]:
    """A count that is 0 but for `some` of the normals and for most frauds, with a mean of about law else; an amount
    that is USUAL for four in five; a column that tells frauds."""
    rng = np.random.default_rng([seed, 11])
    y = (rng.random(n) < 0.12).astype(np.float64)
    has = rng.random(n) < np.where(y == 1, 0.6, some)
    count = np.where(has, 1 + rng.poisson(rng.gamma(1.5, law / 1.5, n)), 0)
    amount = np.where(rng.random(n) < np.where(y == 1, 0.6, 0.85), USUAL, USUAL + rng.gamma(2, 20, n))
    return np.column_stack([count, amount, rng.normal(1.2 * y, 1)]).astype(np.float32).astype(np.float64), y


def logit(x: npt.NDArray[np.floating]) -> Floats:
    at = np.asarray(x, np.float64)
    return np.asarray(
        2.0 * (at[:, COUNT] > 2) + 1.4 * (at[:, AMOUNT] > USUAL + 10) + 1.5 * at[:, PLAIN] - 4.0, np.float64
    )


KNOWN = Knowledge(profile_from(*rows(0, 4_000), logit))


def found(seed: int, column: int, shift: float, scale: float) -> Diagnosis:
    drifted = rows(seed, 1_000)[0]
    drifted[:, column] = (shift + scale * drifted[:, column]).astype(np.float32)
    return diagnose(KNOWN, list(np.split(drifted, 10)))


def told_exactly(got: Diagnosis, column: int, shift: float, scale: float) -> bool:
    change = got.alignment
    assert change is not None, got.reason
    assert change.moved == [column]
    assert change.shift[column] == pytest.approx(shift, abs=1e-5)
    return change.scale[column] == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("shift", "scale"), [(7, 1), (-7, 1), (0, 10), (0, 0.1), (0, 12), (0, 3), (6, 3)])
def test_of_a_count_that_is_mostly_zero_the_change_is_told_exactly(seed: int, shift: float, scale: float) -> None:
    assert told_exactly(found(seed, COUNT, shift, scale), COUNT, shift, scale)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("shift", "scale"), [(30, 1), (-30, 1), (0, 10), (0, 0.01), (0, 2.5)])
def test_of_an_amount_that_is_mostly_the_same_it_is_too(seed: int, shift: float, scale: float) -> None:
    """Its other values hardly repeat, but the usual one does: that it is met settles the rest."""
    assert told_exactly(found(seed, AMOUNT, shift, scale), AMOUNT, shift, scale)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_change_leaves_the_usual_value_behind(seed: int) -> None:
    """A scale alone would explain the other values about as well, and cells do not see where the usual one is."""
    change = found(seed, AMOUNT, 20.0, 3.0).alignment
    assert change is not None
    assert change.shift[AMOUNT] + change.scale[AMOUNT] * USUAL == pytest.approx(20 + 3 * USUAL, rel=1e-6)
    assert change.scale[AMOUNT] == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("column", "shift", "scale", "verdict"),
    [(COUNT, -7, 1, "shift"), (COUNT, 0, 0.1, "units"), (AMOUNT, 0, 0.01, "units")],
)
def test_what_decisions_rest_on_is_put_back(seed: int, column: int, shift: float, scale: float, verdict: str) -> None:
    got = found(seed, column, shift, scale)
    assert (got.verdict, got.promote) == (verdict, True), got.reason


def test_a_class_that_moved_would_have_left_the_usual_value() -> None:
    """Cells do not see frauds that stand below it: nobody stands lower."""
    x, _ = rows(1, 1_000)
    by = np.array([-10.0, 0.0, 10.0])
    normal, fraud = unseen(KNOWN.profile, AMOUNT, x[:, AMOUNT], by, np.array([0.12]))
    assert normal[0] == pytest.approx([2 * 1_000 * 0.88 * 0.85, 0, 2 * 1_000 * 0.88 * 0.85], rel=0.05)
    assert fraud[0] == pytest.approx([2 * 1_000 * 0.12 * 0.6, 0, 2 * 1_000 * 0.12 * 0.6], rel=0.1)
    assert not unseen(KNOWN.profile, PLAIN, x[:, PLAIN], by, np.array([0.12])).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("some", [0.02, 0.4, 0.7])
def test_more_or_fewer_of_the_others_are_no_shift_and_no_scale(seed: int, some: float) -> None:
    drifted = rows(seed, 1_000, some=some)[0]
    got = diagnose(KNOWN, list(np.split(drifted, 10)))
    assert COUNT not in [c.feature for c in got.changes]
    assert got.verdict in ("unexplained", "harmless", "fraud-rate")


def test_one_value_alone_is_an_outage() -> None:
    assert found(1, COUNT, 3.0, 0.0).verdict == "outage"


@pytest.mark.parametrize("seed", range(4, 10))
def test_quiet_rows_follow_the_reference(seed: int) -> None:
    assert found(seed, COUNT, 0.0, 1.0).verdict == "none"
