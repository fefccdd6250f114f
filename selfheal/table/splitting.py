"""Which rows train, check and judge: the earliest train, as in life. And which the bundle keeps for diagnosis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.errors import OperatorError

Labels = npt.NDArray[np.int8]
TRAIN, CHECK = 0.6, 0.15  # of the rows, earliest first; the rest is held out
LEAST = {"training": 20, "check": 5, "held-out": 10}  # rows of either class in each part
ROWS_LEAST, CLASS_LEAST = 200, 40  # in all
KEPT_ROWS, KEPT_CLASS = 2_000, 60  # reference rows below which trained ones are added
KEPT_MAX = 20_000  # reference rows, more only where a class would otherwise be under KEPT_CLASS
NAMES = ("others", "frauds")


class Parts(NamedTuple):
    """Of rows in time order."""

    train: slice
    check: slice
    held: slice

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each part."""
        return {n: s.stop - s.start for n, s in zip(LEAST, self, strict=True)}


def split(labels: Labels, label: str, *, timed: bool) -> Parts:
    """labels (n,) in time order, 0/1; label: its column. Raises OperatorError: one class, or too few rows of one."""
    rows, frauds = len(labels), int(labels.sum())
    if frauds in (0, rows):
        raise OperatorError(
            f"column {label!r} says {'fraud' if frauds else 'no fraud'} in all {rows} rows: there is nothing to tell "
            "apart. Is --label the right column?"
        )
    if rows < ROWS_LEAST or min(frauds, rows - frauds) < CLASS_LEAST:
        raise OperatorError(
            f"{rows} rows with {frauds} frauds are too few: training, calibration and diagnosis need {ROWS_LEAST} rows "
            f"with {CLASS_LEAST} of either class in column {label!r}. Give a longer file"
        )
    first, second = int(TRAIN * rows), int((TRAIN + CHECK) * rows)
    parts = Parts(slice(0, first), slice(first, second), slice(second, rows))
    for (name, least), part in zip(LEAST.items(), parts, strict=True):
        counts = np.bincount(labels[part], minlength=2)
        if counts.min() < least:
            scarce = NAMES[int(counts.argmin())]
            order = "by --time" if timed else "as they stand in the file"
            hint = "give a longer file" if timed else "is the file sorted by its labels? Give --time, or shuffle it"
            raise OperatorError(
                f"rows are taken earliest first, {order}, and the {name} ones ({part.start + 1} to {part.stop}) hold "
                f"{counts.min()} {scarce}, {least} are needed: {hint}"
            )
    return parts


def reference_rows(labels: Labels, held: slice, seed: int) -> npt.NDArray[np.intp]:
    """Places of the rows that the bundle keeps, ascending: held out, since what the network says of rows it was
    trained on is too sure; where those are too few, the rows before them as well. At most KEPT_MAX, drawn from each
    class at its rate."""
    start = held.start
    frauds_after = np.cumsum(labels[::-1])[::-1]  # (n,) from each row to the end
    rows_after = np.arange(len(labels), 0, -1)
    enough = (rows_after >= KEPT_ROWS) & (np.minimum(frauds_after, rows_after - frauds_after) >= KEPT_CLASS)
    start = min(start, int(np.flatnonzero(enough)[-1]) if enough.any() else 0)
    pool = np.arange(start, len(labels))
    fraud = labels[pool] == 1
    rarer = min(fraud.mean(), 1 - fraud.mean())
    most = max(KEPT_MAX, int(np.ceil(KEPT_CLASS / rarer)))
    if len(pool) <= most:
        return pool
    rng = np.random.default_rng([seed, 3])
    share = most / len(pool)
    picked = [
        rng.choice(pool[fraud == c], round(share * int((fraud == c).sum())), replace=False) for c in (False, True)
    ]
    return np.sort(np.concatenate(picked))
