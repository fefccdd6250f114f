"""What a heal without labels does to a stream: order its columns, undo an affine change of each, move the rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from shared.adapters import Adapter
from shared.fills import Fill, refill

Floats = npt.NDArray[np.float64]


class Alignment(msgspec.Struct, frozen=True):
    """Rows (n, d) are read as (x[:, order] - shift) / scale; the logit gains logit(fraud_rate) - logit(trained rate).

    shift, scale: d numbers each, in the feature's own unit as it arrives; scale > 0. order: where each of the
    bundle's columns stands in the feed, empty where every column is in its place.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    fraud_rate: float
    order: tuple[int, ...] = ()

    @property
    def moved(self) -> list[int]:
        """Columns with a shift or a scale."""
        return [f for f, (a, b) in enumerate(zip(self.shift, self.scale, strict=True)) if a != 0 or b != 1]

    def ordered(self, x: npt.NDArray[np.floating]) -> Floats:
        """(n, d) as fed to (n, d) in the bundle's order, float64."""
        rows = np.asarray(x, np.float64)
        return rows[:, list(self.order)] if self.order else rows

    def undo(self, x: npt.NDArray[np.floating], fills: Sequence[Fill] = ()) -> Floats:
        """(n, d) as fed to (n, d) as the network was trained to read them, float64; fills: the bundle's."""
        rows, moved = self.ordered(x), self.moved
        if not moved:
            return rows
        rows = np.asarray((rows - np.array(self.shift)) / np.array(self.scale))
        refill(rows, [fill for fill in fills if fill.feature in moved])
        return rows

    def logit_shift(self, trained_rate: float) -> float:
        """What a changed fraud rate adds to the logit (Bayes; both rates in 0..1, exclusive)."""
        return log_odds(self.fraud_rate) - log_odds(trained_rate)

    def near(self, other: Alignment, deviation: Floats) -> bool:
        """A refinement of other, not another state: same order, shifts within .3 deviations (d,), scales within 22%,
        odds of fraud within a factor of 1.5."""
        a, b = np.array(self.shift) - other.shift, np.log(np.array(self.scale) / other.scale)
        steps = np.abs(a) < 0.3 * deviation * np.array(self.scale)
        rates = abs(log_odds(self.fraud_rate) - log_odds(other.fraud_rate)) < math.log(1.5)
        return self.order == other.order and rates and bool(np.all(steps) and np.all(np.abs(b) < 0.2))


def identity(d: int, fraud_rate: float) -> Alignment:
    """Nothing is changed."""
    return Alignment((0.0,) * d, (1.0,) * d, fraud_rate)


def log_odds(p: float) -> float:
    """logit, p in 0..1 exclusive."""
    return math.log(p / (1 - p))


def alignment_of(adapter: Adapter, trained_rate: float) -> Alignment:
    """What an adapter does to a stream. The adapter is the truth, float32 as it holds them: fraud_rate is what its
    logit_shift makes of the trained rate, exactly that rate where it is 0. Same adapter, same numbers, in every
    process."""
    moved = float(np.float32(adapter.logit_shift))
    return Alignment(
        tuple(adapter.shift.astype(np.float64).tolist()), tuple(adapter.scale.astype(np.float64).tolist()),
        1 / (1 + math.exp(-log_odds(trained_rate) - moved)) if moved else trained_rate, adapter.order,
    )  # fmt: skip


def align(base: Adapter, alignment: Alignment, trained_rate: float) -> Adapter:
    """base with this alignment, rounded to float32: take alignment_of the result for what it then is."""
    return msgspec.structs.replace(
        base, shift=np.array(alignment.shift, np.float32), scale=np.array(alignment.scale, np.float32),
        logit_shift=float(np.float32(alignment.logit_shift(trained_rate))), order=alignment.order,
    )  # fmt: skip
