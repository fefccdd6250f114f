"""The affine change of one feature that best explains its values, for several fraud rates at once.

x_now = a + b * x_then, the classes mixed at rate pi. P rates, G grid points. Each of none, shift, scale, both must pay
for its freedom; a common unit factor is taken in place of the scale that fits a little better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from healer.atoms import ABSENT, MOSTLY, absent, carrying, carrying_few, commonest, has_atoms
from healer.cells import Cells
from healer.scan import best_both, best_scale, best_shift, g2_at
from healer.units import UNIT_REACH, UNITS, as_unit, unit_slack
from shared.alignment import Floats
from shared.profile import Profile

QUARTILES = np.array([0.25, 0.5, 0.75])
AS_WELL = 10.0  # G2 that a change which carries atoms to atoms may fit worse: no other does by chance
BOTH = 12.0  # further penalty for a shift and a scale


class Moves(NamedTuple):
    """Per rate (P,): G2 at the best change, its shift a and scale b, and the penalty it paid (0: unchanged)."""

    g2: Floats
    a: Floats
    b: Floats
    paid: Floats


def penalty(d: int) -> float:
    """What one feature that shifts or scales must gain in G2: 2 ln of the number of such changes looked at."""
    return 2 * math.log(300 * d)


def unmoved(profile: Profile, column: int, cells: Cells, rates: Floats) -> Floats:
    """(P,) G2 without a change."""
    return g2_at(profile, column, cells, rates, np.zeros((1, 1)), np.ones((1, 1)))[:, 0]


def fit_column(profile: Profile, column: int, cells: Cells, values: Floats, rates: Floats) -> Moves:
    """values (n,) as fed, cells of them, rates (P,). Unchanged where there is nothing to explain, or two values."""
    if profile.one_law[column] and len(rates) > 1:  # the rate makes no difference
        return Moves(*(np.repeat(v, len(rates)) for v in fit_column(profile, column, cells, values, rates[:1])))
    bar = penalty(profile.d) + 0.5 * len(cells.edges)
    zero = np.zeros(len(rates))
    still = Moves(unmoved(profile, column, cells, rates), zero, zero + 1, zero)
    odd = still.g2 > bar
    if not profile.movable(column) or not odd.any():
        return still
    best = Moves(*(v[odd] for v in still))
    if profile.discrete(column):
        found = _of_few(profile, column, cells, values, rates[odd], best)
    else:
        low, middle, high = np.quantile(values, QUARTILES)
        if profile.top_share[column] >= MOSTLY and np.mean(values == commonest(values)) >= MOSTLY / 2:
            found = _about_one(profile, column, cells, values, rates[odd], best)
        elif high - low > 1e-9 * profile.deviation[column]:
            found = _search(profile, column, cells, rates[odd], best, (float(middle), float(high - low)))
        else:
            return still
        if has_atoms(profile, column):
            found = _on_atoms(profile, column, cells, values, rates[odd], found)
    out = Moves(*(v.copy() for v in still))
    for whole, part in zip(out, found, strict=True):
        whole[odd] = part
    return out


def _search(profile: Profile, column: int, cells: Cells, rates: Floats, best: Moves, now: tuple[float, float]) -> Moves:
    """The cheapest of `best` (unchanged), shift, scale, both. now: median and interquartile range as fed."""
    (middle, width), pays = now, penalty(profile.d)
    then = profile.quantiles(column, QUARTILES, rates)  # (P, 3)
    spread = np.maximum(then[:, 2] - then[:, 0], 1e-3 * profile.deviation[column])
    ratio = np.maximum(width / spread, 1e-9)
    a, g = best_shift(profile, column, cells, rates, middle - then[:, 1], 1.2 * spread)
    best = _cheaper(best, Moves(g, a, np.ones_like(a), np.full_like(a, pays)))
    quotient = middle / np.where(then[:, 1] == 0, np.inf, then[:, 1])
    for scale in (ratio, np.where(quotient > 0, quotient, ratio)):
        b, g = best_scale(profile, column, cells, rates, scale)
        best = _cheaper(best, Moves(g, np.zeros_like(b), b, np.full_like(b, pays)))
    a, b, g = best_both(profile, column, cells, rates, then[:, 1], middle, spread, ratio)
    return _cheaper(best, Moves(g, a, b, np.full_like(a, pays + BOTH)))


def _about_one(profile: Profile, column: int, cells: Cells, values: Floats, rates: Floats, best: Moves) -> Moves:
    """The same where most rows have one value: quartiles tell nothing of it, nor cells where in the first of them it
    stands. It became the one that most have now, so no shift is free, and but one scale unless both are 0; or the
    others were stretched about it."""
    was, one = _ones(profile, column, values)
    apart, before = np.abs(values - one), np.abs(profile.told(profile.x, column) - was)
    if not apart.any():
        return best
    pays, exact = penalty(profile.d), [(one - was, 1.0)]
    if was * one > 0:
        exact.append((0.0, as_unit(one / was)))
    for a, b in exact:
        a_, b_ = np.full_like(rates, a), np.full_like(rates, b)
        g = g2_at(profile, column, cells, rates, a_[:, None], b_[:, None])[:, 0]
        best = _cheaper(best, Moves(g, a_, b_, np.full_like(rates, pays)))
    ratio = np.full_like(rates, np.median(apart[apart > 0]) / np.median(before[before > 0]))
    b_, g = best_scale(profile, column, cells, rates, ratio, (was, one))
    a_ = one - b_ * was
    return _cheaper(best, Moves(g, a_, b_, np.where(a_ == 0, pays, pays + BOTH)))


def _ones(profile: Profile, column: int, values: Floats) -> tuple[float, float]:
    """The commonest value of the reference, and of those that arrived."""
    return commonest(profile.told(profile.x, column)), commonest(values)


def _on_atoms(profile: Profile, column: int, cells: Cells, values: Floats, rates: Floats, moves: Moves) -> Moves:
    """A shift or a scale such that values of the reference meet values that arrived, where that explains the column as
    well."""
    out, ones = Moves(*(v.copy() for v in moves)), _ones(profile, column, values)
    for i in np.flatnonzero(moves.paid > 0):
        a, b = float(moves.a[i]), float(moves.b[i])
        on_ones = profile.top_share[column] >= MOSTLY and a == ones[1] - b * ones[0]
        if on_ones and b == 1:  # that shift alone carries most rows
            continue
        about = (0.0, 0.0) if a == 0 else ones if on_ones else None
        units = UNITS[np.abs(np.log(UNITS / b)) < UNIT_REACH] if a == 0 else UNITS[:0]
        shifts, scales = carrying(profile, column, values, (a, b), about, units)
        if shifts.size:
            g = g2_at(profile, column, cells, rates[i : i + 1], shifts[None], scales[None])[0]
            at = (g + [unit_slack(scale) for scale in scales]).argmin()
            if g[at] <= moves.g2[i] + AS_WELL:
                out.g2[i], out.a[i], out.b[i] = g[at], shifts[at], as_unit(float(scales[at]))
    return out


def _of_few(profile: Profile, column: int, cells: Cells, values: Floats, rates: Floats, best: Moves) -> Moves:
    """The cheapest of `best` (unchanged) and of what carries the column's few values to those that arrived."""
    shifts, scales = carrying_few(profile, column, values)
    if not shifts.size:
        return best
    scales = np.where(shifts == 0, [as_unit(scale) for scale in scales], scales)
    paid = penalty(profile.d) + np.where((shifts != 0) & (scales != 1), BOTH, 0.0)
    g = g2_at(profile, column, cells, rates, shifts[None], scales[None])
    g = np.where(absent(profile, column, values, shifts, scales, rates) > ABSENT, np.inf, g)
    at = (g + paid).argmin(axis=1)
    rows = np.arange(len(rates))
    return _cheaper(best, Moves(g[rows, at], shifts[at], scales[at], paid[at]))


def _cheaper(one: Moves, other: Moves) -> Moves:
    """Per rate, the one with less G2 + penalty."""
    take = other.g2 + other.paid < one.g2 + one.paid
    return Moves(*(np.where(take, new, old) for old, new in zip(one, other, strict=True)))
