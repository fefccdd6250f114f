"""The reference stream on heavy tails: Student's t features, log-normal amounts. No detail of it is Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from producer.generator import Generator, Labels, Rows

FREEDOM = 3  # degrees: the variance is finite, the fourth moment is not
AMOUNT_MEDIAN, AMOUNT_SIGMA = 40.0, 1.2  # of a transaction; the mean is twice the median


class HeavyTails(Generator):
    """Student's t with 3 degrees of freedom in place of the normal law, in either class, and amounts of money."""

    def rows(
        self, rng: np.random.Generator, n: int, *, fraud_rate: float | None = None, exact: bool = False
    ) -> tuple[Rows, Labels]:
        """As Generator.rows."""
        # NumPy's generator cannot be subclassed for this; _Heavy passes on whatever it does not answer itself.
        return super().rows(_Heavy(rng), n, fraud_rate=fraud_rate, exact=exact)  # type: ignore[arg-type]

    def amounts(self, rng: np.random.Generator, n: int) -> Sequence[float]:
        """n log-normal amounts; drawn after the rows, which stay the same without them."""
        amounts: list[float] = (AMOUNT_MEDIAN * np.exp(AMOUNT_SIGMA * rng.standard_normal(n))).round(2).tolist()
        return amounts


class _Heavy:
    """A random generator whose standard normal is a t with 3 degrees of freedom."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def standard_normal(self, size: tuple[int, int]) -> Rows:
        return self._rng.standard_t(FREEDOM, size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._rng, name)
