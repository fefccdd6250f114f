"""Is one of two models better, on paired labelled rows, however often one looks? An anytime-valid test. Pure.

Rows on which both decide alike say nothing. Otherwise candidate minus active is a gain g in {+missed, -missed} on a
fraud, {+false_alarm, -false_alarm} on a normal row, in units of the larger cost. While the candidate is no better,
E[g] <= 0, and the wealth of a bettor who stakes a share s, prod(1 + s g), is a supermartingale for every s in 0..1;
so is its mean over s. By Ville's inequality it ever reaches E with probability at most 1/E (Shafer 2021; Waudby-Smith
and Ramdas 2024). Weighing by cost, "never fraud" cannot win where fraud is dear, however rare fraud is.
"""

from __future__ import annotations

import functools
import math

import msgspec
import numpy as np
import numpy.typing as npt

from shared.bundle import Costs

NODES = 64  # of the Gauss-Legendre quadrature over the stake: exact to about 1e-9 up to 10,000 rows
_PANELS = (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0)  # the integrand peaks at (wins - losses) / rows, sharply


class Tally(msgspec.Struct, frozen=True):
    """Rows on which exactly one of the two is right. won_*: the candidate is; lost_*: the active one is."""

    won_fraud: int = 0
    lost_fraud: int = 0
    won_normal: int = 0
    lost_normal: int = 0

    @property
    def rows(self) -> int:
        return self.won_fraud + self.lost_fraud + self.won_normal + self.lost_normal

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.won_fraud + other.won_fraud, self.lost_fraud + other.lost_fraud,
            self.won_normal + other.won_normal, self.lost_normal + other.lost_normal,
        )  # fmt: skip

    def reversed(self) -> Tally:
        """The other way round: is the active one better? (rollback)"""
        return Tally(self.lost_fraud, self.won_fraud, self.lost_normal, self.won_normal)


def counted(tally: Tally, candidate: npt.NDArray[np.bool_], active: npt.NDArray[np.bool_], y: npt.ArrayLike) -> Tally:
    """Add rows: both models' flags (n,), labels (n,) of 0/1. Order does not matter."""
    fraud, differ = np.asarray(y) == 1, candidate != active
    won = differ & (candidate == fraud)
    lost = differ & (active == fraud)
    return Tally(
        tally.won_fraud + int((won & fraud).sum()), tally.lost_fraud + int((lost & fraud).sum()),
        tally.won_normal + int((won & ~fraud).sum()), tally.lost_normal + int((lost & ~fraud).sum()),
    )  # fmt: skip


def log_evidence(tally: Tally, costs: Costs) -> float:
    """ln E that the candidate costs less; act at ln 20 or more, say. 0 without rows."""
    dear = max(costs.missed_fraud, costs.false_alarm)
    fraud, normal = costs.missed_fraud / dear, costs.false_alarm / dear
    stake, weight = _nodes()
    wealth = (
        tally.won_fraud * np.log1p(stake * fraud) + tally.lost_fraud * np.log1p(-stake * fraud)
        + tally.won_normal * np.log1p(stake * normal) + tally.lost_normal * np.log1p(-stake * normal)
    )  # fmt: skip
    top = float(wealth.max())
    return top + math.log(float((weight * np.exp(wealth - top)).sum()))


def saved(tally: Tally, costs: Costs) -> float:
    """What the candidate saved on these rows, in the operator's unit."""
    frauds, normals = tally.won_fraud - tally.lost_fraud, tally.won_normal - tally.lost_normal
    return costs.missed_fraud * frauds + costs.false_alarm * normals


def log_evidence_of_counts(wins: int, losses: int) -> float:
    """Closed form for equal costs: E = 2^n * 2 * integral over t in .5..1 of t^wins (1 - t)^losses
    = 2^(n+1) B(wins + 1, losses + 1) P(Binomial(n + 1, 1/2) <= wins), n = wins + losses."""
    n = wins + losses
    beta = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(n + 2)
    k = np.arange(wins + 1)
    terms = [math.lgamma(n + 2) - math.lgamma(i + 1) - math.lgamma(n + 2 - i) for i in k.tolist()]
    top = max(terms)
    tail = top + math.log(sum(math.exp(t - top) for t in terms)) - (n + 1) * math.log(2)
    return (n + 1) * math.log(2) + beta + min(tail, 0.0)


@functools.cache
def _nodes() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Stakes in 0..1 and weights that sum to 1: Gauss-Legendre on each panel."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    low, high = np.array(_PANELS[:-1])[:, None], np.array(_PANELS[1:])[:, None]
    return ((low + high) / 2 + (high - low) / 2 * x).ravel(), (w * (high - low) / 2).ravel()


class Detector(msgspec.Struct, frozen=True):
    """An e-detector (Shin, Ramdas and Rinaldo 2023) that a mean in 0..1 has risen above a limit: per bet a
    Shiryaev-Roberts sum of the wealth of bettors who began at each batch. sums: one per bet, empty before the first.

    While E[x | past] <= limit, each sum less the number of batches is a supermartingale with mean <= 0, so a mean of
    the sums passes c after at least c batches on average, whatever the law."""

    sums: tuple[float, ...] = ()


BETS = (0.05, 0.15, 0.4, 0.9)  # shares of the wealth that a batch at 0 would cost


def fed(detector: Detector, x: float, limit: float) -> Detector:
    """With one more value x in 0..1; limit in 0..1, exclusive."""
    before = detector.sums or (0.0,) * len(BETS)
    return Detector(tuple((r + 1) * (1 + bet * (x / limit - 1)) for r, bet in zip(before, BETS, strict=True)))


def level(detector: Detector) -> float:
    """Compare with the number of batches that may pass between two false alarms."""
    return sum(detector.sums) / len(BETS)
