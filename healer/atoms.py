"""Values that repeat: of all changes that explain a column about as well, those that carry atoms to atoms.

Counts, ages, prices, marks have the same values again and again. What G2 sees of a change lies between the values, so
it leaves the change free by up to half of what lies between two of them; rows undone by it lie beside the values that
the network was trained on. Of a column of few values such changes are all that is looked at.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.alignment import Floats
from shared.profile import Profile

REPEATS = 4  # rows a value, on average, from where a column is taken to have atoms
SHARE = 0.9  # of the rows that have to meet a value of the reference
NEAR = 1e-6  # relative, as Profile reads values: an adapter holds a shift as float32
HALF = 0.5
REACH = 7  # atoms either side of where the commonest value seems to have come from


def has_atoms(profile: Profile, column: int) -> bool:
    """Whether its values repeat often enough in the reference."""
    return bool(profile.distinct[column] * REPEATS <= profile.n)


def carrying(
    profile: Profile, column: int, values: Floats, a: float, b: float, *, shift: bool
) -> tuple[Floats, Floats]:
    """(k,) shifts and (k,) scales of the changes near this one, with another shift (else another scale), that carry
    values of the reference to the values that arrived. The commonest value came from one of the atoms about where it
    seems to come from."""
    then, now, rows = _atoms(profile, column, values)
    common = now[rows.argmax()]
    at = int(np.searchsorted(then, (common - a) / b))
    from_ = then[max(0, at - REACH) : at + REACH + 1]
    if shift:
        shifts = common - b * from_
        scales = np.full_like(shifts, b)
    else:
        scales = (common - a) / from_[from_ != 0]
        shifts = np.full_like(scales, a)
    return _met(profile.deviation[column], then, now, rows, shifts, scales)


def carrying_few(profile: Profile, column: int, values: Floats) -> tuple[Floats, Floats]:
    """The same of a column of few values, whatever the change: all shifts, all scales, and all of both at once, that
    bring its commonest values from somewhere."""
    then, now, rows = _atoms(profile, column, values)
    common = now[np.argsort(-rows, kind="stable")[:2]]
    other = then[then != 0]
    shifts, scales = [common[0] - then, np.zeros(len(other))], [np.ones(len(then)), common[0] / other]
    if len(common) == 2:
        one, two = (v[~np.eye(len(then), dtype=bool)] for v in np.meshgrid(then, then))
        scales.append((common[0] - common[1]) / (one - two))
        shifts.append(common[0] - scales[-1] * one)
    return _met(profile.deviation[column], then, now, rows, np.concatenate(shifts), np.concatenate(scales))


def absent(profile: Profile, column: int, values: Floats, shifts: Floats, scales: Floats, rates: Floats) -> Floats:
    """(P, k) rows that should have arrived, had these changes (k,) been made at fraud rates (P,), with values of the
    reference that did not arrive at all. Cells that lie on the values that arrived do not see it."""
    then, now, _ = _atoms(profile, column, values)
    missing = ~_meets(shifts[:, None] + scales[:, None] * then, now, scales[:, None] * profile.deviation[column])
    normal, fraud = (np.diff(cdf, prepend=0.0) for cdf in profile.class_cdf(column, then))
    expected: Floats = ((1 - rates[:, None]) * normal + rates[:, None] * fraud) @ missing.T * len(values)
    return expected


def steps(profile: Profile, column: int, most: int) -> Floats:
    """(2 k + 1,) ascending, 0 in the middle, k <= most: by how much rows of a column of few values could have moved and
    still, half of them at least, have values that the reference has."""
    rows = np.concatenate(profile.columns[column])
    atoms = np.unique(rows)
    apart = np.unique(atoms[None] - atoms[:, None])
    apart = apart[apart > 0]
    met = np.array([max(np.isin(rows + d, atoms).mean(), np.isin(rows - d, atoms).mean()) for d in apart])
    up = apart[met >= HALF][:most]
    return np.concatenate([-up[::-1], [0.0], up])


def _atoms(profile: Profile, column: int, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Values of the reference (k,) and those that arrived (m,), ascending, with the rows of each."""
    now, rows = np.unique(values, return_counts=True)
    return np.unique(np.concatenate(profile.columns[column])), now, rows / len(values)


def _met(
    deviation: float, then: Floats, now: Floats, share: Floats, shifts: Floats, scales: Floats
) -> tuple[Floats, Floats]:
    """Those of the changes by which enough of the rows meet a value of the reference."""
    shifts, scales = shifts[scales > 0], scales[scales > 0]
    enough = _meets((now - shifts[:, None]) / scales[:, None], then, deviation) @ share >= SHARE
    return shifts[enough], scales[enough]


def _meets(values: Floats, atoms: Floats, deviation: Floats | float) -> npt.NDArray[np.bool_]:
    """Which of the values are among the atoms (ascending)."""
    nearest = atoms[np.searchsorted((atoms[1:] + atoms[:-1]) / 2, values)]
    return np.asarray(np.abs(values - nearest) <= NEAR * (np.abs(values) + deviation))
