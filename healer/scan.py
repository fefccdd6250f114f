"""The shift, the scale, or both, with the least G2, for several fraud rates at once (P rates, G grid points)."""

from __future__ import annotations

import numpy as np

from healer.cells import Cells, class_cells, g2
from healer.units import UNIT_REACH, UNIT_SLACK, UNITS
from shared.alignment import Floats
from shared.profile import Profile


def g2_at(profile: Profile, column: int, cells: Cells, rates: Floats, a: Floats, b: Floats) -> Floats:
    """(P, G) for rates (P,) and changes a, b (P, G) or (1, G)."""
    edges = (cells.edges - a[..., None]) / b[..., None]
    normal, fraud = class_cells(profile, column, edges)
    pi = profile.among_told(column, rates)[:, None, None]
    return g2(cells, (1 - pi) * normal + pi * fraud, profile.known(column, rates)[:, None])


def _best(grid: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Rows' minima: grid points (P,), values (P,)."""
    rows = np.arange(len(values))
    at = values.argmin(axis=1)
    return np.broadcast_to(grid, values.shape)[rows, at], values[rows, at]


def best_shift(
    profile: Profile, column: int, cells: Cells, rates: Floats, start: Floats, width: Floats
) -> tuple[Floats, Floats]:
    """Shift alone: a grid of 13, zoomed 4 times."""
    g = start
    for _ in range(4):
        grid = start[:, None] + width[:, None] * np.linspace(-1, 1, 13)
        start, g = _best(grid, g2_at(profile, column, cells, rates, grid, np.ones_like(grid)))
        width = width * 0.3
    return start, g


def best_scale(
    profile: Profile, column: int, cells: Cells, rates: Floats, start: Floats, about: tuple[float, float] = (0.0, 0.0)
) -> tuple[Floats, Floats]:
    """Scale alone, on the log, such that the first value about becomes the second; of 0 a unit factor nearby is
    preferred."""
    (was, one), log, g, width = about, np.log(start), start, 0.6
    for _ in range(4):
        grid = log[:, None] + width * np.linspace(-1, 1, 13)
        scale = np.exp(grid)
        log, g = _best(grid, g2_at(profile, column, cells, rates, one - scale * was, scale))
        width *= 0.3
    b = np.exp(log)
    close = np.abs(np.log(UNITS) - log[:, None]) < UNIT_REACH  # (P, units)
    if close.any() and was == one == 0:
        grid = UNITS[None]
        found = g2_at(profile, column, cells, rates, np.zeros_like(grid), grid)
        unit, gu = _best(grid, np.where(close & (found < g[:, None] + UNIT_SLACK), found, np.inf))
        snap = np.isfinite(gu)
        b, g = np.where(snap, unit, b), np.where(snap, gu, g)
    return b, g


def best_both(
    profile: Profile,
    column: int,
    cells: Cells,
    rates: Floats,
    pivot: Floats,
    middle: float,
    spread: Floats,
    ratio: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Both: 7 x 7 grids of (where the pivot went, log scale), four rounds."""
    m, log, g = np.full_like(ratio, middle), np.log(ratio), ratio
    wide, tall = 0.8 * spread * ratio, 0.6
    step = np.linspace(-1, 1, 7)
    for _ in range(4):
        centre = (m[:, None, None] + wide[:, None, None] * step[None, :, None]) + np.zeros((1, 1, 7))
        scale = np.exp(log[:, None, None] + tall * step[None, None, :]) + np.zeros((1, 7, 1))
        centre, scale = centre.reshape(len(m), -1), scale.reshape(len(m), -1)
        values = g2_at(profile, column, cells, rates, centre - scale * pivot[:, None], scale)
        m, g = _best(centre, values)
        b, _ = _best(scale, values)
        log, wide, tall = np.log(b), wide * 0.36, tall * 0.36
    return m - np.exp(log) * pivot, np.exp(log), g
