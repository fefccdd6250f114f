"""The newest rows that share one law: a window is cut where its blocks changed most, until nothing changes within."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.alignment import Floats

CHANGE_Z = 4.0  # over every column, its distance from the median, and every cut


def newest_segment(blocks: Sequence[Floats], *, change_z: float = CHANGE_Z) -> int:
    """How many of the newest blocks belong together. blocks: (n_i, c) columns each, oldest first; at least one.

    Binary segmentation over all cuts, by the rank-sum z with averaged ties: comparing only the newest blocks with the
    rest would mix the phases of a drift that comes and goes.
    """
    kept = list(blocks)
    while len(kept) > 1:
        rows = np.concatenate(kept)
        both = np.column_stack([rows, np.abs(rows - np.median(rows, axis=0))])
        z, cut = _largest_change(both, np.cumsum([len(b) for b in kept])[:-1])
        if z <= change_z:
            break
        kept = kept[cut:]
    return len(kept)


def _largest_change(rows: Floats, cuts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[float, int]:
    """The largest |z| over columns and cuts, and how many blocks lie before that cut."""
    n = len(rows)
    ranks = np.column_stack([_ranks(column) for column in rows.T])
    ranks -= (n + 1) / 2
    variance = ranks.var(axis=0)
    before = np.cumsum(ranks, axis=0)[cuts - 1]  # (cuts, c)
    spread = np.sqrt(np.maximum(variance, 1e-12) * (cuts * (n - cuts) / (n - 1))[:, None])
    z = np.where(variance > 0, np.abs(before) / spread, 0.0)
    cut, _ = np.unravel_index(int(z.argmax()), z.shape)
    return float(z.max()), int(cut) + 1


def _ranks(values: Floats) -> Floats:
    """(n,) ranks from 1, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])
