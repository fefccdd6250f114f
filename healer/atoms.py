"""Values that repeat: of all changes that explain a column about as well, those that carry atoms to atoms.

Counts, ages, prices have far more than a few values, and yet the same ones again and again. What G2 sees of a change
lies between the values, so it leaves the change free by up to half of what lies between two of them; rows undone by it
lie beside the values that the network was trained on.
"""

from __future__ import annotations

import numpy as np

from shared.alignment import Floats
from shared.profile import Profile

REPEATS = 4  # rows a value, on average, from where a column is taken to have atoms
SHARE = 0.9  # of the rows that have to meet a value of the reference
NEAR = 1e-6  # relative, as Profile reads values: an adapter holds a shift as float32
REACH = 7  # atoms either side of where the commonest value seems to have come from


def has_atoms(profile: Profile, column: int) -> bool:
    """Whether its values repeat often enough in the reference."""
    return bool(profile.distinct[column] * REPEATS <= profile.n)


def carrying(profile: Profile, column: int, values: Floats, a: float, b: float, *, shift: bool) -> Floats:
    """(k,) the shifts (else the scales) near this one that carry values of the reference to the values that arrived,
    with the other one as it is. The commonest value came from one of the atoms about where it seems to come from."""
    then = np.unique(np.concatenate(profile.columns[column]))
    now, rows = np.unique(values, return_counts=True)
    common = now[rows.argmax()]
    at = int(np.searchsorted(then, (common - a) / b))
    from_ = then[max(0, at - REACH) : at + REACH + 1]
    if shift:
        found = common - b * from_
        undone = (now - found[:, None]) / b
    else:
        found = (common - a) / from_[from_ != 0]
        found = found[found > 0]
        undone = (now - a) / found[:, None]
    to = then[np.searchsorted((then[1:] + then[:-1]) / 2, undone)]
    meets = np.abs(undone - to) <= NEAR * (np.abs(undone) + profile.deviation[column])
    carries: Floats = found[meets @ rows >= SHARE * len(values)]
    return carries
