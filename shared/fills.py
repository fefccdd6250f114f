"""Cells that were empty. Whoever feeds the stream puts the column's median there and raises a flag (docs/own-table.md).

Such a cell tells nothing of the feed: where a column changed its unit, the median put in stays in the old one. So a
diagnosis leaves it out, and an adapter that moves the column reads it as that median, whatever number arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.table.schema import Numeric, Table


class Fill(NamedTuple):
    """feature: whose cell; flag: the 0/1 feature that says it was empty; value: what it then stands for."""

    feature: int
    flag: int
    value: float


def fills_of(table: Table | None, features: Sequence[str]) -> tuple[Fill, ...]:
    """Of a bundle's table, none without one. features: in the order of the wire."""
    at = {name: i for i, name in enumerate(features)}
    flagged = [c for c in (table.columns if table else ()) if isinstance(c, Numeric) and c.flagged]
    return tuple(Fill(at[c.name], at[c.features()[1]], c.median) for c in flagged)


def refill(rows: npt.NDArray[np.floating], fills: Sequence[Fill]) -> None:
    """In place: rows (n, d) undone."""
    for fill in fills:
        rows[rows[:, fill.flag] == 1, fill.feature] = fill.value
