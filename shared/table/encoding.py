"""Rows of cells to rows of features, by the schema that training settled. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shared.table import cells as said
from shared.table.schema import COMMONEST, MISSING, Categories, Column, Numeric, Table


class Encoded(NamedTuple):
    """values: in the order of Table.features. missing, unknown: names of the columns whose cell was empty, and whose
    category training did not know."""

    values: list[float]
    missing: list[str]
    unknown: list[str]


class Encoder:
    """table: the schema. position: where each of its columns stands in a row of cells. decimal_comma: 12,5 is a
    number in these rows."""

    def __init__(self, table: Table, position: Mapping[str, int], decimal_comma: bool = False) -> None:
        self._columns = [(column, position[column.name]) for column in table.columns]
        self._comma = decimal_comma

    def row(self, cells: Sequence[str]) -> Encoded:
        """One row. Raises Refused, which names the column: a cell of a numeric column that is no finite number."""
        out = Encoded([], [], [])
        for column, at in self._columns:
            empty = said.missing(cells[at])
            if empty:
                out.missing.append(column.name)
            if isinstance(column, Numeric):
                value = column.median if empty else said.number(cells[at], column.name, decimal_comma=self._comma)
                out.values.append(value)
                if column.flagged:
                    out.values.append(float(empty))
                continue
            category = MISSING if empty else cells[at].strip()
            numbers, known = encoded(column, category)
            out.values.extend(numbers)
            if not known:
                out.unknown.append(column.name)
        return out


def encoded(column: Column, category: str) -> tuple[list[float], bool]:
    """Features of a category, and whether it is one that training knew."""
    if isinstance(column, Categories):
        known = category in column.values
        return [*(float(category == v) for v in column.values), float(not known)], known
    if isinstance(column, Numeric):
        raise TypeError(f"{column.name} holds numbers, not categories")
    return [float(column.classes.get(category, 0))], category in column.classes


def commonness(share: float) -> int:
    """share of the training rows, in (0, 1], to a class: 12 + log2(share), rounded, at least 1."""
    return max(COMMONEST + round(math.log2(share)), 1)
