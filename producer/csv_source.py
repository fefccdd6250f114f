"""Rows of a CSV file as batches, read as they are asked for. A bad row is counted and told, and left out."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from producer.batch import Batch
from shared.errors import OperatorError, Refused
from shared.records import MAX_ROWS
from shared.telemetry import get_logger

FAULTS_KEPT = 20
_ID_MAX = 200
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Columns:
    """Positions in the file's header; width: cells in a row."""

    features: tuple[int, ...]
    label: int | None
    amount: int | None
    id: int | None
    width: int


@dataclass(frozen=True)
class _Row:
    numbers: list[float]
    label: int
    amount: float
    id: str


@dataclass
class CsvSource:
    """A file with a header row. features: the bundle's names, in its order. columns: feature to column, where the
    names differ. label, amount, id: columns that hold them (label 0 or 1). rows: a batch; the last may be shorter.

    Afterwards `bad` is the number of rows left out and `faults` the first 20 of them, with their line.
    Raises OperatorError: no such file, no such column.
    """

    path: Path
    features: Sequence[str]
    rows: int = 100
    columns: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    amount: str | None = None
    id: str | None = None
    bad: int = field(default=0, init=False)
    faults: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MAX_ROWS:
            raise OperatorError(f"{self.rows} rows a batch: give 1 to {MAX_ROWS}")
        if unknown := [f for f in self.columns if f not in self.features]:
            raise OperatorError(f"no feature {', '.join(unknown)} in the bundle; it has {', '.join(self.features)}")
        with self._open() as lines:
            self._header(csv.reader(lines))

    @property
    def name(self) -> str:
        """The file's name, as far as a batch id can hold it."""
        return "".join(c if c.isalnum() and c.isascii() else "-" for c in self.path.stem)[:40].strip("-") or "csv"

    @property
    def labelled(self) -> bool:
        return self.label is not None

    def batches(self) -> Iterator[Batch]:
        """The good rows in order, `rows` a batch; holds one batch in memory. Raises OperatorError: no good row."""
        self.bad, self.faults = 0, []
        with self._open() as lines:
            good, sent = self._good_rows(lines), 0
            while held := list(itertools.islice(good, self.rows)):
                sent += len(held)
                yield self._batch(held)
        if not sent:
            raise OperatorError(f"{self.path}: no row that can be used; {'; '.join(self.faults[:3]) or 'it is empty'}")

    def _open(self) -> TextIO:
        try:
            # A byte that is no UTF-8 spoils its own cell, not the file.
            return self.path.open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as exc:
            raise OperatorError(f"cannot read {self.path}: {exc.strerror}") from exc

    def _header(self, reader: Iterator[list[str]]) -> _Columns:
        try:
            header = next(reader, [])
        except csv.Error as exc:
            raise OperatorError(f"{self.path}: the header row cannot be read: {exc}") from exc

        def position(name: str) -> int:
            if header.count(name) != 1:
                found = "no" if name not in header else "more than one"
                raise OperatorError(f"{self.path}: {found} column {name!r}; the header has {', '.join(header)[:300]}")
            return header.index(name)

        features = tuple(position(self.columns.get(f, f)) for f in self.features)
        label, amount, id_ = (None if name is None else position(name) for name in (self.label, self.amount, self.id))
        return _Columns(features, label, amount, id_, len(header))

    def _good_rows(self, lines: TextIO) -> Iterator[_Row]:
        reader = csv.reader(lines)
        where = self._header(reader)
        recent: dict[str, int] = {}  # id to the number of its row: an id may not come twice within a batch
        count = 0
        while True:
            try:
                cells = next(reader, None)
                if cells is None:
                    return
                if not cells:
                    continue  # an empty line, as many files end with
                row = self._row(cells, where)
                if self.id is not None:
                    if recent.get(row.id, -1) >= count - count % self.rows:
                        raise Refused(f"{row.id!r} occurs twice in one batch", self.id)
                    if count % self.rows == 0:
                        recent.clear()
                    recent[row.id] = count
            except (csv.Error, Refused) as exc:
                self._blame(reader.line_num, str(exc))
                continue
            count += 1
            yield row

    def _blame(self, line: int, reason: str) -> None:
        self.bad += 1
        if self.bad <= FAULTS_KEPT:
            self.faults.append(f"line {line}: {reason}")
            get_logger("producer").warning("bad_csv_row", file=str(self.path), line=line, reason=reason)

    def _row(self, cells: list[str], where: _Columns) -> _Row:
        if len(cells) != where.width:
            raise Refused(f"{len(cells)} cells, the header has {where.width}")
        numbers = [_number(cells[p], f) for p, f in zip(where.features, self.features, strict=True)]
        label = amount = 0.0
        if where.label is not None:
            label = _number(cells[where.label], self.label or "")
            if label not in (0, 1):
                raise Refused(f"{cells[where.label]!r} is neither 0 nor 1", self.label)
        if where.amount is not None:
            amount = _number(cells[where.amount], self.amount or "")
        given = cells[where.id] if where.id is not None else ""
        if where.id is not None and not 1 <= len(given) <= _ID_MAX:
            raise Refused(f"an id has 1 to {_ID_MAX} characters", self.id)
        return _Row(numbers, int(label), amount, given)

    def _batch(self, held: list[_Row]) -> Batch:
        return Batch(
            np.array([r.numbers for r in held], np.float64),
            None if self.label is None else np.array([r.label for r in held], np.int8),
            None if self.id is None else [r.id for r in held],
            None if self.amount is None else [r.amount for r in held],
        )


def _number(cell: str, name: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        raise Refused(f"{cell[:40]!r} is not a number", name) from None
    if not abs(number) <= _FLOAT32_MAX:  # NaN fails too
        raise Refused(f"{cell[:40]!r} is not a finite number of single precision", name)
    return number
