"""How well a law explains the values of one column: the likelihood-ratio statistic G2 over cells.

Cells lie on the values that arrived, not on the reference's: edges on the reference fake gains. n rows, K cells.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from shared.alignment import Floats
from shared.profile import Profile

QUANTILES = np.array([0.01, 0.03, 0.06, *np.arange(0.1, 0.91, 0.05), 0.94, 0.97, 0.99])
NEAR = 1e-6  # relative: values undone by a scale that an adapter holds as float32
PSEUDO = 0.5  # rows added to each cell of the reference, so that no cell is impossible


class Cells(NamedTuple):
    """edges (K - 1,) ascending; counts (K,) of the values at or below each edge, and above the last."""

    edges: Floats
    counts: Floats

    @property
    def n(self) -> float:
        return float(self.counts.sum())

    @property
    def degrees(self) -> int:
        return max(len(self.edges), 1)


def cells_of(profile: Profile, column: int, values: Floats) -> Cells:
    """Edges midway between neighbouring values at fixed quantiles; of a discrete column, between all its atoms."""
    ordered = np.sort(values)
    n = len(ordered)
    if column < profile.d and profile.discrete(column):
        atoms = np.union1d(np.concatenate(profile.law(column)), ordered)
        apart = np.diff(atoms) > NEAR * (np.abs(atoms[1:]) + profile.deviation[column])
        edges = ((atoms[1:] + atoms[:-1]) / 2)[apart]
        if len(edges) > 2 * len(QUANTILES):
            edges = edges[:: math.ceil(len(edges) / (2 * len(QUANTILES)))]
    else:
        at = np.clip(np.round(QUANTILES * n).astype(int), 1, n - 1)
        lower = np.unique(ordered[at - 1])
        lower = lower[lower < ordered[-1]]
        # Never on a value that repeats: what rounding does to a change would tip all of it over the edge.
        edges = np.unique((lower + ordered[np.searchsorted(ordered, lower, "right")]) / 2)
    inner = np.searchsorted(ordered, edges, "right")
    return Cells(edges, np.diff(np.concatenate([[0], inner, [n]])).astype(np.float64))


def class_cells(profile: Profile, column: int, edges: Floats) -> tuple[Floats, Floats]:
    """Probabilities of the cells (..., K) in either class; edges (..., K - 1) in the reference's units."""
    normal, fraud = profile.class_cdf(column, edges)
    return _steps(normal), _steps(fraud)


def g2(cells: Cells, probability: Floats, known: Floats) -> Floats:
    """(...,) from cell probabilities (..., K) estimated on `known` (...,) rows: 2 sum c ln(c / n p), divided by
    1 + n / known for the estimate's own error. About chi-square with K - 1 degrees of freedom."""
    n, count = cells.n, cells.counts
    rows = np.asarray(known)[..., None]
    p = (probability * rows + PSEUDO) / (rows + PSEUDO * len(count))
    filled = count > 0
    constant = float((count[filled] * np.log(count[filled] / n)).sum())
    return np.asarray(2 * (constant - np.log(p) @ count) / (1 + n / known))


def surprise(statistic: float, degrees: int) -> float:
    """A chi-square statistic as a standard normal z (Wilson and Hilferty, 1931)."""
    share = 2 / (9 * degrees)
    return float((max(statistic, 1e-9) / degrees) ** (1 / 3) - (1 - share)) / math.sqrt(share)


def _steps(cdf: Floats) -> Floats:
    """(..., K - 1) distribution at the edges to (..., K) probabilities between them."""
    zero, one = np.zeros((*cdf.shape[:-1], 1)), np.ones((*cdf.shape[:-1], 1))
    return np.diff(np.concatenate([zero, cdf, one], axis=-1), axis=-1)
