"""Detection: does what arrives still follow the reference, as the network reads it? With a stated false-alarm rate.

For every column (features and score) the probability integral transform under the reference is uniform while nothing
has drifted; the means of its first four Legendre polynomials (Neyman's smooth test, 1937) are compared with the
reference's over the newest 1, 3, 5 and 10 blocks. Sums per block are all that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from shared.alignment import Floats
from shared.profile import Profile

WINDOWS = (1, 3, 5, 10)  # blocks
FLOOR = 3.0  # rows: a variance below FLOOR / n is taken as that, or two rows of a rare category would be an alarm
DRAWS = 30_000  # bootstrap blocks behind the threshold
# Consecutive blocks share windows, but so far out an exceedance comes alone: 22 in 20 clusters, of 60,000 quiet blocks.
OVERLAP = 1.1


class Sums(msgspec.Struct, frozen=True):
    """Of one block under one state. rows: how many. moments: (d + 1) * 4 sums, column by column, as float64 little
    endian: as JSON (base64) half as long as numbers, and exact."""

    rows: int
    moments: bytes

    def array(self) -> Floats:
        """((d + 1) * 4,)."""
        return np.frombuffer(self.moments, "<f8")

    def plus(self, other: Sums) -> Sums:
        """Of both blocks together."""
        return Sums(self.rows + other.rows, (self.array() + other.array()).tobytes())


def sums_of(profile: Profile, values: Floats, fraud_rate: float) -> Sums:
    """values (n, d + 1): the rows as a state reads them (Profile.read)."""
    return Sums(len(values), profile.moment_sums(values, fraud_rate).astype("<f8").tobytes())


def z_scores(profile: Profile, blocks: Sequence[Sums], fraud_rate: float) -> Floats:
    """(d + 1, 4) |z| of all the blocks together."""
    n = sum(b.rows for b in blocks)
    total = np.sum([b.array() for b in blocks], axis=0).reshape(profile.d + 1, -1)
    mean, variance = profile.moments(fraud_rate)
    error = np.maximum(variance, FLOOR / n) * (1 / n + 1 / profile.known_of_all(fraud_rate))[:, None]
    return np.asarray(np.abs(total / n - mean) / np.sqrt(error))


def worst_z(profile: Profile, blocks: Sequence[Sums], fraud_rate: float, *, longest: int = WINDOWS[-1]) -> float:
    """The largest |z| over the windows that the blocks (oldest first) fill, none longer than `longest`."""
    sizes = [w for w in WINDOWS if w <= min(len(blocks), longest)]
    return max((float(z_scores(profile, blocks[-w:], fraud_rate).max()) for w in sizes), default=0.0)


def worst_column(profile: Profile, blocks: Sequence[Sums], fraud_rate: float, h: float) -> tuple[int, float]:
    """The column behind an alarm and its z: the worst feature, which says what to look at, where one passes h; else
    the score (column d), which follows them all."""
    sizes = [w for w in WINDOWS if w <= len(blocks)]
    z = np.max([z_scores(profile, blocks[-w:], fraud_rate).max(axis=1) for w in sizes], axis=0)
    worst = int(z[:-1].argmax())
    if z[worst] <= h:
        worst = len(z) - 1
    return worst, float(z[worst])


def threshold(profile: Profile, *, quiet_batches: float = 10_000, rows: int = 100, seed: int = 0) -> float:
    """h such that a quiet stream of blocks of `rows` rows passes it once in quiet_batches blocks.

    From bootstrap streams of the reference: q the 99% quantile of the largest |z|, beyond it z^2/2 is about
    exponential with mean m, so h^2 = q^2 + 2 m ln(0.01 quiet_batches / OVERLAP). About 2 s.
    """
    rng = np.random.default_rng(seed)
    values = np.column_stack([profile.x, profile.logit(profile.x)])
    each = profile.row_moments(values, profile.fraud_rate).reshape(profile.n, -1)
    mean, variance = (m.ravel() for m in profile.moments(profile.fraud_rate))
    picks = rng.integers(0, profile.n, (DRAWS, rows))
    sums = np.stack([each[pick].sum(axis=0) for pick in picks]) - rows * mean
    running = np.concatenate([np.zeros((1, len(mean))), np.cumsum(sums, axis=0)])
    peaks = np.zeros(DRAWS)
    for window in WINDOWS:
        n = window * rows
        error = np.sqrt(np.maximum(variance, FLOOR / n) / n)  # drawn from the reference: it has no error of its own
        z = np.abs(running[window:] - running[:-window]) / (n * error)
        peaks[window - 1 :] = np.maximum(peaks[window - 1 :], z.max(axis=1))
    peaks = peaks[WINDOWS[-1] - 1 :]
    q = float(np.quantile(peaks, 0.99))
    tail = max(float(((peaks[peaks > q] ** 2 - q * q) / 2).mean()), 0.5)
    return math.sqrt(q * q + 2 * tail * max(math.log(0.01 * quiet_batches / OVERLAP), 0.0))
