"""Values that repeat: of all changes that explain a column about as well, those that carry atoms to atoms.

Counts, ages, prices, marks have the same values again and again. What G2 sees of a change lies between the values, so
it leaves the change free by up to half of what lies between two of them; rows undone by it lie beside the values that
the network was trained on. Of a column of few values such changes are all that is looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.alignment import Floats
from shared.profile import Profile

REPEATS = 4  # rows a value, on average, from where a column is taken to have atoms
SHARE = 0.9  # of the rows that would meet a value of the reference without drift, have to
NEAR = 1e-6  # relative, as Profile reads values: an adapter holds a shift as float32
HALF = 0.5
ABSENT = 5.0  # rows that should have arrived with values of which none did: by chance with probability .007
MOSTLY = 0.5  # share of the commonest value, where the middle half of the rows may have no other
REACH = 7  # atoms either side of where the commonest value seems to have come from


def has_atoms(profile: Profile, column: int) -> bool:
    """Whether its values repeat often enough in the reference."""
    return bool(profile.distinct[column] * REPEATS <= profile.n)


class Atoms(NamedTuple):
    """Values of the reference (k,) and those that arrived (m,), ascending, with the share of the rows of each; without
    the value that any scale about it would leave where it is, where there is one. enough: the share of the rows that
    has to meet a value of the reference."""

    then: Floats
    now: Floats
    share: Floats
    deviation: float
    enough: float

    def met(self, shifts: Floats, scales: Floats) -> tuple[Floats, Floats]:
        """Those of the changes (k,) by which enough of the rows meet a value of the reference."""
        shifts, scales = shifts[scales > 0], scales[scales > 0]
        enough = _meets((self.now - shifts[:, None]) / scales[:, None], self.then, self.deviation) @ self.share
        return shifts[enough >= self.enough], scales[enough >= self.enough]


def atoms_of(profile: Profile, column: int, values: Floats, about: tuple[float, float] | None = None) -> Atoms:
    """about: what was so in the reference, and has become so, whatever the scale."""
    then, before = np.unique(profile.told(profile.x, column), return_counts=True)
    now, rows = np.unique(values, return_counts=True)
    if about is not None:
        before, (now, rows) = before[then != about[0]], (v[now != about[1]] for v in (now, rows))
    alone = before[before == 1].sum() / max(before.sum(), 1)  # such a value need not be met again without drift
    return Atoms(then, now, rows / max(rows.sum(), 1), profile.deviation[column], SHARE * (1 - alone))


def carrying(
    profile: Profile,
    column: int,
    values: Floats,
    change: tuple[float, float],
    about: tuple[float, float] | None,
    scales: Floats,
) -> tuple[Floats, Floats]:
    """(k,) shifts and (k,) scales of the changes near this one (shift, scale) that carry values of the reference to the
    values that arrived: with another shift; or, with a value that they are all about, with another scale, one of these
    too. The commonest value came from one of the atoms about where it seems to come from."""
    atoms = atoms_of(profile, column, values, about)
    if not atoms.now.size:
        return atoms.now, atoms.now
    common, (a, b) = atoms.now[atoms.share.argmax()], change
    at = int(np.searchsorted(atoms.then, (common - a) / b))
    from_ = atoms.then[max(0, at - REACH) : at + REACH + 1]
    if about is None:
        return atoms.met(common - b * from_, np.full_like(from_, b))
    was, one = about
    scales = np.concatenate([scales, (common - one) / (from_[from_ != was] - was)])
    return atoms.met(one - scales * was, scales)


def carrying_few(profile: Profile, column: int, values: Floats) -> tuple[Floats, Floats]:
    """The same of a column of few values, whatever the change: all shifts, all scales, and all of both at once, that
    bring its commonest values from somewhere."""
    atoms = atoms_of(profile, column, values)
    then, common = atoms.then, atoms.now[np.argsort(-atoms.share, kind="stable")[:2]]
    other = then[then != 0]
    shifts, scales = [common[0] - then, np.zeros(len(other))], [np.ones(len(then)), common[0] / other]
    if len(common) == 2:
        one, two = (v[~np.eye(len(then), dtype=bool)] for v in np.meshgrid(then, then))
        scales.append((common[0] - common[1]) / (one - two))
        shifts.append(common[0] - scales[-1] * one)
    return atoms.met(np.concatenate(shifts), np.concatenate(scales))


def absent(profile: Profile, column: int, values: Floats, shifts: Floats, scales: Floats, rates: Floats) -> Floats:
    """(P, k) rows that should have arrived, had these changes (k,) been made at fraud rates (P,), with values of the
    reference that did not arrive at all. Cells that lie on the values that arrived do not see it."""
    atoms = atoms_of(profile, column, values)
    carried = shifts[:, None] + scales[:, None] * atoms.then
    missing = ~_meets(carried, atoms.now, scales[:, None] * atoms.deviation)
    normal, fraud = (np.diff(cdf, prepend=0.0) for cdf in profile.class_cdf(column, atoms.then))
    expected: Floats = ((1 - rates[:, None]) * normal + rates[:, None] * fraud) @ missing.T * len(values)
    return expected


def unseen(profile: Profile, column: int, values: Floats, by: Floats, rates: Floats) -> Floats:
    """(2, P, k) of a column of mostly one value: G2 of the rows that would have it, moved by so much (k,) with their
    class, where fewer have that value. Cells lie beside it and do not see where in them it stands. values (n,): as in
    the reference, that is, undone."""
    found = np.zeros((2, len(rates), len(by)))
    if profile.top_share[column] < MOSTLY:
        return found
    one = commonest(profile.told(profile.x, column))
    near = NEAR * (np.abs(one + by) + profile.deviation[column])
    seen = (np.abs(values[:, None] - (one + by)) <= near).sum(axis=0)  # (k,)
    for c, share in enumerate(((1 - rates), rates)):
        expected = (len(values) * share * (profile.law(column)[c] == one).mean())[:, None]
        fewer = (seen < expected) & (expected > ABSENT)
        ratio = np.maximum(seen, 1e-12) / np.maximum(expected, 1e-12)
        found[c] = np.where(fewer, 2 * (expected - seen + seen * np.log(ratio)), 0.0)
    return found


def steps(profile: Profile, column: int, most: int) -> Floats:
    """(2 k + 1,) ascending, 0 in the middle, k <= most: by how much rows of a column of few values could have moved and
    still, half of them at least, have values that the reference has."""
    rows = profile.told(profile.x, column)
    atoms = np.unique(rows)
    apart = np.unique(atoms[None] - atoms[:, None])
    apart = apart[apart > 0]
    met = np.array([max(np.isin(rows + d, atoms).mean(), np.isin(rows - d, atoms).mean()) for d in apart])
    up = apart[met >= HALF][:most]
    return np.concatenate([-up[::-1], [0.0], up])


def commonest(values: Floats) -> float:
    """Of equally common ones the least."""
    found, rows = np.unique(values, return_counts=True)
    return float(found[rows.argmax()])


def _meets(values: Floats, atoms: Floats, deviation: Floats | float) -> npt.NDArray[np.bool_]:
    """Which of the values are among the atoms (ascending)."""
    nearest = atoms[np.searchsorted((atoms[1:] + atoms[:-1]) / 2, values)]
    return np.asarray(np.abs(values - nearest) <= NEAR * (np.abs(values) + deviation))
