"""What arrives in a scenario, batch by batch, and what the best informed model would answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from producer.drift import Adapt, Mechanism, Shift, generator_at, rows_at
from producer.generator import Generator, Labels, Rows
from producer.scenarios import CLEAN, SCENARIOS, Scenario
from shared.alignment import Floats, log_odds
from shared.profile import Logit

BATCH_ROWS, DRIFTED = 100, 40
HEAVY = "t3"  # suffix of a heavy-tailed variant


class Arrival(NamedTuple):
    """x (n, d) as fed, float32 as the scorer reads it; y (n,); oracle (n,) logits, known after the fact."""

    x: npt.NDArray[np.float32]
    y: Labels
    oracle: Floats


class HeavyTails(Generator):
    """Student's t with 3 degrees of freedom in place of the normal law, in either class."""

    def rows(
        self, rng: np.random.Generator, n: int, *, fraud_rate: float | None = None, exact: bool = False
    ) -> tuple[Rows, Labels]:
        """As Generator.rows."""
        # NumPy's generator cannot be subclassed for this; _Heavy passes on whatever it does not answer itself.
        return super().rows(_Heavy(rng), n, fraud_rate=fraud_rate, exact=exact)  # type: ignore[arg-type]


class _Heavy:
    """A random generator whose standard normal is a t with 3 degrees of freedom."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def standard_normal(self, size: tuple[int, int]) -> Rows:
        return self._rng.standard_t(3, size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._rng, name)


def scenario(name: str) -> Scenario:
    """By name, S0..S14; with "t3" appended, on heavy-tailed features."""
    plain = SCENARIOS[name.removesuffix(HEAVY)]
    if not name.endswith(HEAVY):
        return plain
    g = plain.generator
    return replace(plain, name=name, generator=HeavyTails(g.features, g.informative, g.fraud_rate, g.correlation))


def arrivals(scene: Scenario, seed: int, logit: Logit, batches: int = CLEAN + DRIFTED) -> Iterator[Arrival]:
    """The stream of one seed. logit: of the frozen network, behind the oracle of invertible drift."""
    rng = np.random.default_rng([seed, 1])
    for k in range(1, batches + 1):
        law = generator_at(scene.steps, scene.generator, k)
        rows, y = law.rows(rng, BATCH_ROWS, exact=scene.exact)
        x = rows_at(scene.steps, law.features, k, rows, y).astype(np.float32)
        yield Arrival(x, y, _oracle(scene, law, rows, x, k, logit))


def _oracle(scene: Scenario, law: Generator, rows: Rows, x: npt.NDArray[np.float32], k: int, logit: Logit) -> Floats:
    """Drift of all rows alike: the network on the rows as they were. Drift of one class: Bayes' rule."""
    changed = [s for s in scene.steps if s.profile.weight(k)]
    if any(isinstance(s, Adapt | Mechanism) for s in changed):
        return bayes(law, rows)
    if one := next((s for s in changed if isinstance(s, Shift) and s.only == "normal"), None):
        column = law.features.index(one.feature)
        moved = tuple(
            replace(f, normal_mean=f.normal_mean + one.amount) if f.column == column else f for f in law.informative
        )
        return bayes(replace(law, informative=moved), np.asarray(x, np.float64))
    rate = log_odds(law.fraud_rate) - log_odds(scene.generator.fraud_rate)
    return logit(rows.astype(np.float32)) + rate


def bayes(law: Generator, x: Rows) -> Floats:
    """(n, d) to (n,): the logit of p(fraud | x) under normal laws."""
    out = np.full(len(x), log_odds(law.fraud_rate))
    for f in law.informative:
        fraud = (x[:, f.column] - f.fraud_mean) / f.fraud_deviation
        normal = (x[:, f.column] - f.normal_mean) / f.normal_deviation
        out += (normal**2 - fraud**2) / 2 - math.log(f.fraud_deviation / f.normal_deviation)
    return out
