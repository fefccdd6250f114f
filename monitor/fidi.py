"""FIDI: how far the recent mean of each feature stands from its training mean, in training deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

WINDOW = 10  # batch means, as published
FIRST = 3  # batches before z is defined
TOP = 5  # features named in a drift event
Window = list[list[float]]  # the newest batches' means of every feature, oldest first: (k, d), k <= 10


class Calibration(msgspec.Struct, frozen=True):
    """Training statistics in the bundle's order: mu (d,), sigma (d,), both in the feature's units. A feature that
    was constant in training has no deviation: it is measured in its own units."""

    features: list[str]
    watched: int
    mu: Sequence[float]
    sigma: Sequence[float]

    @property
    def name(self) -> str:
        """The watched feature."""
        return self.features[self.watched]


def pushed(window: Window, sums: list[float], rows: int) -> Window:
    """The window with one more batch's means, the oldest dropped when full."""
    return [*window[len(window) - WINDOW + 1 if len(window) >= WINDOW else 0 :], [s / rows for s in sums]]


def z_score(window: Window, feature: int, calibration: Calibration) -> float | None:
    """|mean(window) - mu| / sigma, None before 3 batches (reference-experiment.md, Signals)."""
    if len(window) < FIRST:
        return None
    # fsum: the same bits on every version of Python, which sum() is not
    mean = math.fsum([means[feature] for means in window]) / len(window)
    return abs(mean - calibration.mu[feature]) / (calibration.sigma[feature] or 1.0)


def top_features(window: Window, calibration: Calibration) -> dict[str, float]:
    """The features that moved most, largest first, with their z rounded to 3 digits; empty before 3 batches."""
    found = {name: z_score(window, i, calibration) for i, name in enumerate(calibration.features)}
    ranked = sorted(((z, name) for name, z in found.items() if z is not None), key=lambda pair: -pair[0])
    return {name: round(z, 3) for z, name in ranked[:TOP]}
