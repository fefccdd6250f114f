"""The cheapest explanation of a window of rows: nothing, a few features moved, the fraud rate moved, or both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from healer.cells import Cells, cells_of, class_cells, g2, surprise
from healer.fit import BOTH, Moves, fit_column, penalty, unmoved
from healer.scan import g2_at
from healer.units import unit_slack
from shared.alignment import Alignment, Floats, identity, log_odds
from shared.profile import Profile

RATE_PAYS = 10.0  # G2 that a free fraud rate must gain
RIVAL = 8.0  # G2 within which an explanation with a rate of its own cannot be ruled out
SCORE_WEIGHT = 0.5  # the score repeats what features say
ODDS_REACH = 3.0  # fraud rates looked at: log odds this far either way of the trained one, a factor of 20


class Explanation(msgspec.Struct, frozen=True):
    """alignment: what to undo. objective: G2 and penalties. misfits: z of each column's G2 after undoing, the score's
    last. considered: objective of the best of each kind; rival: the best with a rate of its own, whatever else it
    moves, where it is hardly dearer."""

    alignment: Alignment
    objective: float
    misfits: tuple[float, ...]
    considered: dict[str, float]
    rival: Alignment | None = None

    @property
    def surprise(self) -> float:
        return max(self.misfits)

    @property
    def worst(self) -> int:
        """The column that fits least."""
        return self.misfits.index(self.surprise)


class Window:
    """Rows (n, d) in the bundle's order, what they tell of each feature, its cells, and what was already computed."""

    def __init__(self, profile: Profile, rows: Floats) -> None:
        self.profile, self.rows = profile, rows
        self.score = profile.logit(rows)
        self.told = [profile.told(rows, f) for f in range(profile.d)]
        self.cells = [cells_of(profile, f, told) for f, told in enumerate(self.told)]
        self.score_cells = cells_of(profile, profile.d, self.score)

    def unmoved(self, rates: Floats) -> Floats:
        """(P,) sum over features of G2 without any change."""
        return np.asarray(np.sum([unmoved(self.profile, f, c, rates) for f, c in enumerate(self.cells)], axis=0))

    def score_g2(self, rate: float, cells: Cells) -> float:
        normal, fraud = class_cells(self.profile, self.profile.d, cells.edges)
        known = self.profile.known(self.profile.d, np.array(rate))
        return float(g2(cells, (1 - rate) * normal + rate * fraud, known))

    def vague(self, rates: Floats) -> Floats:
        """(P,) what the rates pay, in G2, for a law that the reference knows less well than the trained one's: the
        logarithm that belongs to dividing G2 by 1 + n / known (minus twice the log of a normal density with so much
        more variance, once for each degree of freedom). Without it the rarest class, of which least is known, would
        explain anything."""
        profile, n = self.profile, len(self.rows)
        degrees = [*(float(c.degrees) for c in self.cells), SCORE_WEIGHT * self.score_cells.degrees]
        return np.asarray(np.sum([k * vagueness(profile, c, n, rates) for c, k in enumerate(degrees)], axis=0))

    def cells_of_score(self, alignment: Alignment) -> Cells:
        """Of the score of the undone rows."""
        if not alignment.moved:
            return self.score_cells
        return cells_of(self.profile, self.profile.d, self.profile.read(self.rows, alignment)[:, -1])

    def fit(self, rates: Floats) -> list[Moves]:
        """Per feature, its best change at each rate."""
        return [fit_column(self.profile, f, c, self.told[f], rates) for f, c in enumerate(self.cells)]

    def misfit(self, alignment: Alignment) -> float:
        """G2 of the features, and of the score at its weight, and what the rate pays for a vaguer law; no other
        penalties."""
        rate, a, b = (np.array(v) for v in ([alignment.fraud_rate], alignment.shift, alignment.scale))
        features = sum(
            float(g2_at(self.profile, f, c, rate, a[f : f + 1, None], b[f : f + 1, None])[0, 0])
            for f, c in enumerate(self.cells)
        )
        score = SCORE_WEIGHT * self.score_g2(alignment.fraud_rate, self.cells_of_score(alignment))
        return features + score + float(self.vague(rate)[0])

    def misfits(self, alignment: Alignment) -> tuple[float, ...]:
        """(d + 1,) z of each column's G2 after undoing, the score's last. Rows are already in order."""
        rate = np.array([alignment.fraud_rate])
        a, b = np.array(alignment.shift)[:, None, None], np.array(alignment.scale)[:, None, None]
        z = [
            surprise(float(g2_at(self.profile, f, c, rate, a[f], b[f])[0, 0]), c.degrees)
            for f, c in enumerate(self.cells)
        ]
        score = self.cells_of_score(alignment)
        z.append(surprise(self.score_g2(alignment.fraud_rate, score), score.degrees))
        return tuple(z)


def vagueness(profile: Profile, column: int, n: int, rates: Floats) -> Floats:
    """(P,) of one degree of freedom of a column over n rows: 0 at the trained rate."""
    trained = profile.known(column, np.array(profile.fraud_rate))
    return np.asarray(np.log1p(n / profile.known(column, rates)) - np.log1p(n / trained))


def rates_looked_at(trained: float, count: int) -> Floats:
    """(count,) fraud rates around the trained one."""
    return _rates(log_odds(trained) - ODDS_REACH, log_odds(trained) + ODDS_REACH, count)


def complexity(alignment: Alignment, trained_rate: float) -> float:
    """What an alignment pays, in G2: for each feature it moves (a scale that is almost a unit pays more), and
    for its rate."""
    paid = 0.0 if alignment.fraud_rate == trained_rate else RATE_PAYS
    for f in alignment.moved:
        a, b = alignment.shift[f], alignment.scale[f]
        paid += penalty(len(alignment.shift)) + (BOTH if a != 0 and b != 1 else 0.0)
        paid += unit_slack(b)
    return paid


def explain(window: Window) -> Explanation:
    """The cheapest of none, rate, moved, moved and rate."""
    profile, trained = window.profile, window.profile.fraud_rate
    plain = identity(profile.d, trained)
    best: dict[str, tuple[float, Alignment]] = {}

    def offer(kind: str, moves: Sequence[Moves], rates: Floats) -> float:
        """Total of each rate; the score is only read where it can matter. Returns the best rate."""
        base = np.sum([m.g2 + m.paid for m in moves], axis=0) + np.where(rates == trained, 0.0, RATE_PAYS)
        base = base + window.vague(rates)
        found, best_rate = math.inf, float(rates[0])
        for i in np.argsort(base):
            if base[i] >= found:
                break
            alignment = Alignment(
                tuple(float(m.a[i]) for m in moves), tuple(float(m.b[i]) for m in moves), float(rates[i])
            )
            total = float(base[i]) + SCORE_WEIGHT * window.score_g2(float(rates[i]), window.cells_of_score(alignment))
            if total < found:
                found, best_rate = total, float(rates[i])
                if total < best.get(kind, (math.inf, plain))[0]:
                    best[kind] = (total, alignment)
        return best_rate

    def still(rates: Floats) -> list[Moves]:
        zero = np.zeros(len(rates))
        return [
            Moves(window.unmoved(rates), zero, zero + 1, zero),
            *[Moves(zero, zero, zero + 1, zero)] * (profile.d - 1),
        ]

    rates, width = rates_looked_at(trained, 8), 2 * ODDS_REACH / 7
    offer("none", still(np.array([trained])), np.array([trained]))
    _zoom(lambda r: offer("rate", still(r), r), rates, width, ((7, 0.35), (7, 0.35), (7, 0.35)))
    if profile.d > 0:
        first = window.fit(np.concatenate([[trained], rates]))
        offer("moved", [Moves(*(v[:1] for v in m)) for m in first], np.array([trained]))
        if any(np.any(m.paid > 0) for m in first):
            rate = offer("both", [Moves(*(v[1:] for v in m)) for m in first], rates)
            _zoom(lambda r: offer("both", window.fit(r), r), _around(rate, width, 5), width * 0.4, ((5, 0.4),))
    objective, alignment = min(best.values(), key=lambda found: found[0])
    other = min((best[kind] for kind in ("rate", "both") if kind in best), key=lambda found: found[0])
    return Explanation(
        alignment, objective, window.misfits(alignment), {kind: found[0] for kind, found in best.items()},
        other[1] if other[0] < objective + RIVAL else None,
    )  # fmt: skip


def _rates(low: float, high: float, count: int) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.linspace(low, high, count))))


def _around(rate: float, width: float, count: int) -> Floats:
    return _rates(log_odds(rate) - width, log_odds(rate) + width, count)


def _zoom(offer: Callable[[Floats], float], rates: Floats, width: float, rounds: Sequence[tuple[int, float]]) -> None:
    """Offer the rates, then for each (count, shrink) as many around the best so far, ever closer."""
    rate = offer(rates)
    for count, shrink in rounds:
        rate = offer(_around(rate, width, count))
        width *= shrink
