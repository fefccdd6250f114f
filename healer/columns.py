"""A feed whose columns arrive in another order: found by each column's law, and by how columns hang together."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from healer.knowledge import Knowledge
from shared.alignment import Floats
from shared.profile import Profile

BETTER = 0.6  # of the excess of the order as fed over undrifted windows: a new order must leave less
USUAL = 1.3  # of the worst undrifted window of as many rows
BLOCKS = 20  # undrifted windows looked at
SAMPLE = 1_000  # rows behind distances and correlations


def find_order(knowledge: Knowledge, fed: Floats) -> tuple[int, ...] | None:
    """fed (n, d). Where each of the bundle's columns stands in the feed; None where no order explains the rows."""
    profile = knowledge.profile
    if profile.d < 2:
        return None
    rows = fed[-SAMPLE:]
    ks, ranks = _distances(profile, rows), _correlations(rows)
    reference = _correlations(profile.x[-5 * SAMPLE :])
    start = tuple(range(profile.d))

    def cost(order: tuple[int, ...]) -> float:
        return _cost(ks, ranks, reference, order)

    noise = 1.36 * float(np.sqrt(1 / len(rows) + 1 / profile.n))  # 95% point of a KS distance between equal laws
    starts = [start[k:] + start[:k] for k in range(profile.d)] + [assignment(ks - noise * np.eye(profile.d))]
    best = min(starts, key=cost)
    if cost(best) >= cost(start):
        best = start
    best = _swapped(best, cost)
    best = _settled(best, ks, noise)
    if best == start:
        return None
    if len(rows) not in knowledge.usual_orders:
        knowledge.usual_orders[len(rows)] = _usual(profile, reference, len(rows))
    usual = knowledge.usual_orders[len(rows)]
    mean, worst = float(np.mean(usual)), max(usual)
    if cost(start) <= worst or cost(best) - mean > BETTER * (cost(start) - mean) or cost(best) > USUAL * worst:
        return None
    return best


def _distances(profile: Profile, rows: Floats) -> Floats:
    """(d, d): Kolmogorov-Smirnov distance of the bundle's column i to the feed's column j."""
    n, fed = len(rows), np.sort(rows, axis=0)
    out = np.empty((profile.d, profile.d))
    for i in range(profile.d):
        known = np.sort(profile.x[:, i])
        for j in range(profile.d):
            v = fed[:, j]
            above = np.searchsorted(known, v, "right") / len(known) - np.searchsorted(v, v, "right") / n
            below = np.searchsorted(known, v, "left") / len(known) - np.searchsorted(v, v, "left") / n
            out[i, j] = max(np.abs(above).max(), np.abs(below).max())
    return out


def _correlations(rows: Floats) -> Floats:
    """(d, d) rank correlations; 0 for a constant column."""
    ranks = np.argsort(np.argsort(rows, axis=0, kind="stable"), axis=0).astype(np.float64)
    ranks[:, rows.std(axis=0) == 0] = 0
    centred = ranks - ranks.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(centred.T @ centred / np.maximum(np.outer(norm, norm), 1e-12))


def _cost(ks: Floats, ranks: Floats, reference: Floats, order: tuple[int, ...]) -> float:
    at = list(order)
    d = len(at)
    return float(
        ks[np.arange(d), at].sum() + np.triu(np.abs(ranks[np.ix_(at, at)] - reference), 1).sum() / max(d - 1, 1)
    )


def _usual(profile: Profile, reference: Floats, n: int) -> list[float]:
    """Costs of undrifted windows of n rows in their own order."""
    rng = np.random.default_rng(n)
    start = tuple(range(profile.d))
    windows = [profile.x[rng.integers(0, profile.n, n)] for _ in range(BLOCKS)]
    return [_cost(_own(profile, w), _correlations(w), reference, start) for w in windows]


def _own(profile: Profile, rows: Floats) -> Floats:
    """As _distances, the diagonal only."""
    n, fed, out = len(rows), np.sort(rows, axis=0), np.zeros((profile.d, profile.d))
    for i in range(profile.d):
        v, known = fed[:, i], np.sort(profile.x[:, i])
        gap = np.searchsorted(known, v, "right") / len(known) - np.searchsorted(v, v, "right") / n
        out[i, i] = np.abs(gap).max()
    return out


def _swapped(order: tuple[int, ...], cost: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """Swap two columns while that helps, the best pair first; at most 2 d swaps."""
    for _ in range(2 * len(order)):
        pairs = [_exchange(order, i, j) for i, j in itertools.combinations(range(len(order)), 2)]
        best = min(pairs, key=cost)
        if cost(best) >= cost(order) - 1e-9:
            break
        order = best
    return order


def _settled(order: tuple[int, ...], ks: Floats, noise: float) -> tuple[int, ...]:
    """Columns that nobody can tell apart go back to their own place."""
    for i in range(len(order)):
        if order[i] != i and i in order:
            j = order.index(i)
            back = ks[i, i] + ks[j, order[i]]
            if back <= ks[i, order[i]] + ks[j, i] + noise:
                order = _exchange(order, i, j)
    return order


def _exchange(order: tuple[int, ...], i: int, j: int) -> tuple[int, ...]:
    out = list(order)
    out[i], out[j] = out[j], out[i]
    return tuple(out)


def assignment(cost: Floats) -> tuple[int, ...]:
    """(d, d) costs to the cheapest one-to-one choice, column of each row: the Hungarian method with potentials
    (Kuhn 1955, Munkres 1957), O(d^3)."""
    d = len(cost)
    u, v = np.zeros(d + 1), np.zeros(d + 1)
    row_of = np.zeros(d + 1, dtype=int)  # rows and columns count from 1 here; 0 is none
    for row in range(1, d + 1):
        row_of[0], column = row, 0
        slack, way, used = np.full(d + 1, np.inf), np.zeros(d + 1, dtype=int), np.zeros(d + 1, dtype=bool)
        while row_of[column]:
            used[column] = True
            reduced = np.concatenate([[np.inf], cost[row_of[column] - 1] - u[row_of[column]] - v[1:]])
            nearer = ~used & (reduced < slack)
            slack[nearer], way[nearer] = reduced[nearer], column
            nearest = int(np.where(used, np.inf, slack).argmin())
            delta = slack[nearest]
            u[row_of[used]] += delta
            v[used] -= delta
            slack[~used] -= delta
            column = nearest
        while column:
            row_of[column] = row_of[way[column]]
            column = int(way[column])
    chosen = np.empty(d, dtype=int)
    chosen[row_of[1:] - 1] = np.arange(d)
    return tuple(int(c) for c in chosen)
