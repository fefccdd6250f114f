"""A small bundle-free profile for the tests of detection and diagnosis: the reference generator, and Bayes' rule on
its one informative feature in place of the network."""

import functools

import numpy as np

from producer.generator import REFERENCE, Generator
from selfheal.gauntlet.world import bayes
from shared.alignment import Floats
from shared.profile import Profile, profile_from

ROWS, V14 = 4_000, 7


@functools.cache
def profile(seed: int = 0, generator: Generator = REFERENCE) -> Profile:
    """4,000 labelled rows of the generator."""
    x, y = generator.rows(np.random.default_rng([seed, 9]), ROWS)
    return profile_from(x.astype(np.float32), y, lambda rows: bayes(generator, np.asarray(rows, np.float64)))


def batches(seed: int, count: int, rows: int = 100, rate: float = 0.15) -> list[Floats]:
    """Undrifted batches (rows, d)."""
    rng = np.random.default_rng([seed, 10])
    return [REFERENCE.rows(rng, rows, fraud_rate=rate)[0] for _ in range(count)]


def moved(blocks: list[Floats], shift: float = 0.0, scale: float = 1.0, column: int = V14) -> list[Floats]:
    """shift + scale * column."""
    out = [b.copy() for b in blocks]
    for b in out:
        b[:, column] = shift + scale * b[:, column]
    return out
