"""FIDI: how far the recent mean of each feature stands from its training mean, in training deviations."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

WINDOW = 10  # batch means, as published
FIRST = 3  # batches before z is defined
TOP = 5  # features named in a drift event
Floats = npt.NDArray[np.float64]


class Calibration(msgspec.Struct, frozen=True):
    """Training statistics in the bundle's order: mu (d,), sigma (d,), both in the feature's units."""

    features: list[str]
    watched: int
    mu: Floats
    sigma: Floats

    @classmethod
    def of(cls, features: list[str], watched: int, mean: Sequence[float], deviation: Sequence[float]) -> Calibration:
        """A feature that was constant in training has no deviation: it is measured in its own units."""
        sigma = np.asarray(deviation, np.float64)
        return cls(features, watched, np.asarray(mean, np.float64), np.where(sigma > 0, sigma, 1.0))

    @property
    def name(self) -> str:
        """The watched feature."""
        return self.features[self.watched]


def pushed(window: Floats, sums: Floats, rows: int) -> Floats:
    """The window (k, d), k <= 10, with the means of one more batch below it, the oldest row dropped when full."""
    means = (sums / rows)[None, :]
    return means if not len(window) else np.concatenate((window[1:] if len(window) == WINDOW else window, means))


def z_scores(window: Floats, calibration: Calibration) -> Floats | None:
    """(d,) |mean(window) - mu| / sigma, None before 3 batches (reference-experiment.md, Signals)."""
    if len(window) < FIRST:
        return None
    distance: Floats = np.abs(np.add.reduce(window, axis=0) / len(window) - calibration.mu)
    return distance / calibration.sigma


def top_features(z: Floats, calibration: Calibration) -> dict[str, float]:
    """The features that moved most, largest first, with their z rounded to 3 digits."""
    order = np.argsort(-z, kind="stable")[:TOP]
    return {calibration.features[i]: round(float(z[i]), 3) for i in order}
