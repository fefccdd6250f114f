"""Common unit factors: a scale that is one is the likelier for it, a scale beside one has to pay."""

from __future__ import annotations

import math

import numpy as np

UNITS = np.array([f for k in (10.0, 100.0, 1000.0, 12.0, 24.0, 60.0, 1.8) for f in (k, 1 / k)])
UNIT_REACH = np.minimum(0.3, 0.1 * np.abs(np.log(UNITS)))  # |ln(factor / scale)|: 10 catches 8 to 12.6; 1.8, 1.7 to 1.9
# G2 that a unit factor may fit worse than the best scale (four standard errors at 10 and beyond, where little but a
# unit is to be expected): the nearer to 1, the more likely is a scale that is no unit.
UNIT_SLACK = 15.0 * np.minimum(1.0, (np.log(UNITS) / math.log(10)) ** 2)
SAME = 1e-6  # relative: an adapter holds its scale as float32


def is_unit(scale: float) -> bool:
    """A common unit factor, as an adapter holds it?"""
    return unit_favour(scale) > 0


def as_unit(scale: float) -> float:
    """The unit factor that it is but for rounding, else itself."""
    unit = float(UNITS[np.abs(np.log(UNITS / scale)).argmin()])
    return unit if abs(scale / unit - 1) < SAME else scale


def unit_favour(scale: float) -> float:
    """G2 by which a scale is favoured for being a unit factor; 0 where it is none."""
    same = np.abs(scale / UNITS - 1) < SAME
    return float(UNIT_SLACK[same].max()) if same.any() else 0.0


def unit_slack(scale: float) -> float:
    """What a scale pays, in G2, for being no unit factor: nothing where none is near."""
    near = np.abs(np.log(scale / UNITS)) < UNIT_REACH
    return 0.0 if is_unit(scale) or not near.any() else float(UNIT_SLACK[near].max())
