"""Would the repair help in every world that the rows allow? Two worlds with the same P(x) look the same.

The fit says that both classes moved together. In other worlds the normals moved by one amount and the frauds by
another, at another fraud rate. Those that explain the feature's values and the score's about as well as the best are
tried on labelled reference rows: the repair passes only if it helps in the likeliest and hurts in none of them.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from healer.atoms import unseen
from healer.cells import Cells, cells_of, class_cells, g2
from healer.explain import SCORE_WEIGHT, Window, rates_looked_at
from healer.knowledge import Knowledge
from healer.units import unit_favour
from shared.alignment import Alignment, Floats, log_odds
from shared.profile import known_rows

Places = npt.NDArray[np.intp]
ALLOWED = 6.0  # dG2 of a world that cannot be ruled out
# The same where a feature is shifted and scaled at once: what such a change explains by its freedom, classes that
# parted explain with less.
ALLOWED_TWOFOLD = 12.0
ODDS_CHANGE, PARTING, PARTS = 1.5, 1.4, 2.0
# What a world pays in which, beside what is undone, fraud became rarer or commoner, or the classes of a column that has
# not moved parted: two things at a time, where most often there is one. Not so beside a twofold change.
COINCIDENCE = 4.0


class Effect(msgspec.Struct, frozen=True):
    """On accuracy at the flag threshold, and cost per transaction at the one in force; estimated without labels.

    before, after: (accuracy, cost) in the likeliest world. gain_worst, gain_best: (accuracy gained, cost saved), each
    the extreme over the worlds that the rows allow. drop: (accuracy lost, cost added) by the drift itself, at most.
    """

    before: tuple[float, float]
    after: tuple[float, float]
    gain: tuple[float, float]
    gain_worst: tuple[float, float]
    gain_best: tuple[float, float]
    drop: tuple[float, float]
    worlds: int


def effect_of(knowledge: Knowledge, window: Window, alignment: Alignment) -> Effect:
    """window: rows in the bundle's order. Effect of activating the alignment in place of the frozen network."""
    profile = knowledge.profile
    outcomes = Outcomes(knowledge, alignment)
    rates = np.append(rates_looked_at(profile.fraud_rate, 12), [alignment.fraud_rate, profile.fraud_rate])
    still = np.array([knowledge.still(0)])
    likeliest = outcomes.at(0, still, still, np.array([alignment.fraud_rate]))
    found, parted = [likeliest], [np.array([True])]
    score_cells = window.cells_of_score(alignment)
    twofold = [a != 0 and b != 1 for a, b in zip(alignment.shift, alignment.scale, strict=True)]
    feed = alignment.fraud_rate == profile.fraud_rate and bool(alignment.moved or alignment.order)
    rate_pays = COINCIDENCE if feed and not any(twofold) else 0.0
    # Where units are all there is to undo, fraud that changed elsewhere at the same time is the less likely.
    units = [_favour(alignment, f) for f in alignment.moved] if feed else []
    aside = max(PARTS + min(units, default=0.0), rate_pays)
    for f in [*knowledge.informative, *(f for f in alignment.moved if profile.discrete(f))]:
        values = (window.told[f] - alignment.shift[f]) / alignment.scale[f]
        parts = PARTS + _favour(alignment, f) if f in alignment.moved else aside
        within = ALLOWED_TWOFOLD if twofold[f] else ALLOWED
        cells = cells_of(profile, f, values)
        by = knowledge.nudges(f) * profile.deviation[f]
        i, j, k = allowed(
            knowledge, f, cells, score_cells, rates, parts=parts, rate_pays=rate_pays, within=within,
            absent=unseen(profile, f, values, by, rates),
        )  # fmt: skip
        found.append(outcomes.at(f, i, j, rates[k]))
        parted.append((i != knowledge.still(f)) | (j != knowledge.still(f)))
    all_ = np.concatenate(found, axis=1)  # (6, worlds)
    best = all_[:, 0]
    # Where both classes are as they were and the rate is left alone, undoing gives what the network was trained for: if
    # the drifted one is cheaper there, since fraud is rarer or commoner, then by luck.
    counts = np.concatenate(parted) | (alignment.fraud_rate != profile.fraud_rate)
    gain = np.stack([all_[2] - all_[0], all_[1] - all_[3]])
    return Effect(
        before=(float(best[0]), float(best[1])),
        after=(float(best[2]), float(best[3])),
        gain=(float(gain[0, 0]), float(gain[1, 0])),
        gain_worst=(float(gain[0, counts].min()), float(gain[1, counts].min())),
        gain_best=(float(gain[0].max()), float(gain[1].max())),
        drop=(float((all_[4] - all_[0]).max()), float((all_[1] - all_[5]).max())),
        worlds=all_.shape[1],
    )


def allowed(
    knowledge: Knowledge,
    feature: int,
    cells: Cells,
    score_cells: Cells,
    rates: Floats,
    *,
    parts: float = PARTS,
    rate_pays: float = 0.0,
    within: float = ALLOWED,
    absent: Floats | None = None,
) -> tuple[Places, Places, Places]:
    """Indices (normals' nudge, frauds' nudge, rate) of the worlds within so much of the best. cells: of the repaired
    feature; score_cells: of the repaired score; parts, rate_pays: what a world pays in which the classes parted, or in
    which fraud is not as common as in training; absent: G2 that cells do not see (2, rates, nudges)."""
    profile = knowledge.profile
    nudges = knowledge.nudges(feature)
    edges = cells.edges[None] - nudges[:, None] * profile.deviation[feature]
    told = profile.among_told(feature, rates)
    total = _mixed(cells, *class_cells(profile, feature, edges), told, profile.known(feature, rates))
    normal_rows, fraud_rows = (s.shape[1] for s in knowledge.nudged(feature))
    normal, fraud = (_shares(scores, score_cells.edges) for scores in knowledge.nudged(feature))
    known = known_rows(rates, normal_rows, fraud_rows)
    total += SCORE_WEIGHT * _mixed(score_cells, normal, fraud, rates, known)
    vague = cells.degrees * np.log1p(cells.n / profile.known(feature, rates))
    vague += SCORE_WEIGHT * score_cells.degrees * np.log1p(cells.n / known)
    total += vague[:, None, None] + _unlikely(rates, nudges, profile.fraud_rate, parts)
    total += (rate_pays * (rates != profile.fraud_rate))[:, None, None]
    if absent is not None:
        total += absent[0][:, :, None] + absent[1][:, None, :]
    k, i, j = np.nonzero(total <= total.min() + within)
    return i, j, k


def _favour(alignment: Alignment, feature: int) -> float:
    """Fraudsters do not make a feature ten times as large: that its classes parted as well is as much less likely."""
    return unit_favour(alignment.scale[feature]) if alignment.shift[feature] == 0 else 0.0


def _unlikely(rates: Floats, nudges: Floats, trained_rate: float, parts: float) -> Floats:
    """(rates, nudges of normals, nudges of frauds) -2 ln of how likely such a world is beforehand: log odds of fraud
    change by 1.5, classes part by 1.4 deviations (one standard deviation each), and most often not at all."""
    odds = (np.log(rates / (1 - rates)) - log_odds(trained_rate)) / ODDS_CHANGE
    apart = (nudges[:, None] - nudges[None]) / PARTING
    return np.asarray((odds**2)[:, None, None] + (apart**2 + parts * (apart != 0))[None])


def _mixed(cells: Cells, normal: Floats, fraud: Floats, rates: Floats, known: Floats) -> Floats:
    """(rates, nudges of normals, nudges of frauds) G2."""
    return np.stack(
        [g2(cells, (1 - r) * normal[:, None] + r * fraud[None], k) for r, k in zip(rates, known, strict=True)]
    )


def _shares(scores: Floats, edges: Floats) -> Floats:
    """(nudges, m) scores to (nudges, K) shares between the edges."""
    below = np.stack([np.searchsorted(np.sort(row), edges, "right") for row in scores]) / scores.shape[1]
    return np.diff(np.concatenate([np.zeros((len(below), 1)), below, np.ones((len(below), 1))], axis=1), axis=1)


class Outcomes:
    """Shares of either class flagged, frozen and repaired, in worlds where one feature's classes moved on their own."""

    def __init__(self, knowledge: Knowledge, alignment: Alignment) -> None:
        self.knowledge, self.alignment, self.profile = knowledge, alignment, knowledge.profile
        self.cuts = np.array([log_odds(min(max(p, 1e-9), 1 - 1e-9)) for p in (self.profile.flag, self.profile.cut)])
        self.offset = alignment.logit_shift(self.profile.fraud_rate)

    def at(self, feature: int, i: Places, j: Places, rates: Floats) -> Floats:
        """(6, worlds): accuracy and cost frozen, the same repaired, the same as if nothing had drifted but the rate."""
        before = [self._flagged(c, feature, at, frozen=True) for c, at in enumerate((i, j))]  # (2 cuts, worlds)
        after = [self._flagged(c, feature, at, frozen=False) for c, at in enumerate((i, j))]
        still = np.full_like(i, self.knowledge.still(feature))
        clean = [(self.knowledge.nudged(feature)[c][still] > self.cuts[:, None, None]).mean(axis=2) for c in (0, 1)]
        return np.concatenate([self._worth(rates, *pair) for pair in (before, after, clean)])

    def _worth(self, rates: Floats, normal: Floats, fraud: Floats) -> Floats:
        costs = self.profile.costs
        accuracy = (1 - rates) * (1 - normal[0]) + rates * fraud[0]
        cost = (1 - rates) * normal[1] * costs.false_alarm + rates * (1 - fraud[1]) * costs.missed_fraud
        return np.stack([accuracy, cost])

    def _flagged(self, label: int, feature: int, at: Places, *, frozen: bool) -> Floats:
        """(2 cuts, worlds) shares of the class above each cut."""
        used, inverse = np.unique(at, return_inverse=True)
        if not frozen:
            scores = self.knowledge.nudged(feature)[label][used] + self.offset
        elif not self.alignment.moved and not self.alignment.order:
            scores = self.knowledge.nudged(feature)[label][used]
        else:
            scores = self._frozen(label, feature, used)
        share: Floats = (scores[None] > self.cuts[:, None, None]).mean(axis=2)
        return share[:, inverse]

    def _frozen(self, label: int, feature: int, used: Places) -> Floats:
        """(used nudges, rows) what the network makes of the rows as they would be fed."""
        rows = self.knowledge.rows[label]
        many = np.repeat(rows[None], len(used), axis=0)
        many[:, :, feature] += (self.knowledge.nudges(feature)[used] * self.profile.deviation[feature])[:, None]
        many = many.reshape(-1, rows.shape[1])
        fed = np.array(self.alignment.shift) + np.array(self.alignment.scale) * many
        for fill in self.profile.fills.values():
            fed[:, fill.feature] = np.where(many[:, fill.flag] == 1, fill.value, fed[:, fill.feature])
        if self.alignment.order:
            ordered = np.empty_like(fed)
            ordered[:, list(self.alignment.order)] = fed
            fed = ordered
        return self.profile.logit(fed).reshape(len(used), -1)
