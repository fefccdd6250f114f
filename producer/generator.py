"""The synthetic stream: standard normal noise and a few informative features whose law depends on the class."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Informative:
    """A feature's normal law in either class."""

    column: int
    normal_mean: float
    normal_deviation: float
    fraud_mean: float
    fraud_deviation: float


@dataclass(frozen=True)
class Generator:
    """d features named V7.. so that column 7 is V14, as in the published experiment; fraud_rate in 0..1.

    correlation: of each noise feature with the noise feature before it, in -1..1; each stays N(0, 1) by itself.
    mimics: the share of normals that looks like fraud on every informative feature, in 0..1.
    """

    features: tuple[str, ...]
    informative: tuple[Informative, ...]
    fraud_rate: float = 0.15
    correlation: float = 0.0
    mimics: float = 0.0

    def rows(
        self, rng: np.random.Generator, n: int, *, fraud_rate: float | None = None, exact: bool = False
    ) -> tuple[Rows, Labels]:
        """n rows (n, d) and their labels (n,) in random order. exact: round(n * rate) frauds, not a random number.

        Draws the same numbers from rng whatever the laws are (those behind mimics last): two generators differ only
        where their laws do.
        """
        rate = self.fraud_rate if fraud_rate is None else fraud_rate
        if exact:
            labels = rng.permutation((np.arange(n) < round(n * rate)).astype(np.int8))
        else:
            labels = (rng.random(n) < rate).astype(np.int8)
        x = self.noise(rng, n)
        if self.correlation:
            self._correlate(x)
        like_fraud = labels == 1
        if self.mimics:
            like_fraud = like_fraud | (rng.random(n) < self.mimics)
        for f in self.informative:
            noise = x[:, f.column]
            normal = f.normal_mean + f.normal_deviation * noise
            fraud = f.fraud_mean + f.fraud_deviation * noise
            x[:, f.column] = np.where(like_fraud, fraud, normal)
        return x, labels

    def noise(self, rng: np.random.Generator, n: int) -> Rows:
        """(n, d) independent draws of the law that every class is shifted and stretched from."""
        return rng.standard_normal((n, len(self.features)))

    def _correlate(self, x: Rows) -> None:
        """An autoregression along the noise columns: corr(i, j) = correlation ** |i - j|, variances stay 1."""
        informative = {f.column for f in self.informative}
        noise = [c for c in range(len(self.features)) if c not in informative]
        fresh = math.sqrt(1 - self.correlation**2)
        for before, column in itertools.pairwise(noise):
            x[:, column] = self.correlation * x[:, before] + fresh * x[:, column]


NAMES = tuple(f"V{i}" for i in range(7, 17))  # V7..V16: column 7 is V14
REFERENCE = Generator(NAMES, (Informative(7, 0.0, 1.0, -2.5, 0.8),))
# Scenario S6: three features tell of fraud. The best any model can do: accuracy .967, F1 .889.
THREE = Generator(
    NAMES,
    (
        Informative(7, 0.0, 1.0, -2.5, 0.8),
        Informative(3, 0.0, 1.0, 1.3, 1.0),
        Informative(5, 0.0, 1.0, 1.3, 1.0),
    ),
)
