"""The reference stream on heavy tails: Student's t features, log-normal amounts. No detail of it is Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from producer.generator import Generator, Rows

FREEDOM = 3  # degrees: the variance is finite, the fourth moment is not
AMOUNT_MEDIAN, AMOUNT_SIGMA = 40.0, 1.2  # of a transaction; the mean is twice the median


class HeavyTails(Generator):
    """Student's t with 3 degrees of freedom in place of the normal law, in either class, and amounts of money."""

    def noise(self, rng: np.random.Generator, n: int) -> Rows:
        """As Generator.noise."""
        return rng.standard_t(FREEDOM, (n, len(self.features)))

    def amounts(self, rng: np.random.Generator, n: int) -> Sequence[float]:
        """n log-normal amounts; drawn after the rows, which stay the same without them."""
        amounts: list[float] = (AMOUNT_MEDIAN * np.exp(AMOUNT_SIGMA * rng.standard_normal(n))).round(2).tolist()
        return amounts
