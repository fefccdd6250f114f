"""Rows of a CSV file as batches, read as they are asked for. A bad row is counted and told, and left out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from producer.batch import Batch
from shared.errors import OperatorError, Refused
from shared.records import MAX_ROWS
from shared.table import cells as said
from shared.table.encoding import Encoded, Encoder
from shared.table.reading import CsvFile
from shared.table.schema import Table
from shared.telemetry import get_logger

FAULTS_KEPT = 20
_ID_MAX = 200


@dataclass(frozen=True)
class _Columns:
    """encode: cells to features. The others: positions in the file's header."""

    encode: Callable[[Sequence[str]], Encoded]
    label: int | None
    amount: int | None
    id: int | None


@dataclass(frozen=True)
class _Row:
    numbers: list[float]
    label: int
    amount: float
    id: str


@dataclass
class CsvSource:
    """A file with a header row. features: the bundle's names, in its order. table: how the bundle makes them of the
    file's columns; None: each is a column of numbers. columns: the bundle's name to the file's, where they differ.
    label, amount, id: columns that hold them; a table knows its own label and amount, used where the file has them.
    rows: a batch; the last may be shorter. delimiter: None looks for it.

    Afterwards `bad` is the number of rows left out and `faults` the first 20 of them, with their line; `missing` and
    `unknown` count, by column, empty cells and categories that training did not know.
    Raises OperatorError: no such file, no such column.
    """

    path: Path
    features: Sequence[str]
    rows: int = 100
    columns: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    amount: str | None = None
    id: str | None = None
    table: Table | None = None
    delimiter: str | None = None
    bad: int = field(default=0, init=False)
    faults: list[str] = field(default_factory=list, init=False)
    missing: Counter[str] = field(default_factory=Counter, init=False)
    unknown: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MAX_ROWS:
            raise OperatorError(f"{self.rows} rows a batch: give 1 to {MAX_ROWS}")
        fed = self.features if self.table is None else [c.name for c in self.table.columns]
        if unknown := [f for f in self.columns if f not in fed]:
            kind = "feature" if self.table is None else "column"
            raise OperatorError(f"no {kind} {', '.join(unknown)} in the bundle; it has {', '.join(fed)[:1000]}")
        self._file = CsvFile(self.path, self.delimiter)
        if self.table is not None:
            self.label = self.label or self._own(self.table.label)
            self.amount = self.amount or self._own(self.table.amount)
        self._where = self._columns()

    @property
    def name(self) -> str:
        """The file's name, as far as a batch id can hold it."""
        return "".join(c if c.isalnum() and c.isascii() else "-" for c in self.path.stem)[:40].strip("-") or "csv"

    @property
    def labelled(self) -> bool:
        return self.label is not None

    def batches(self) -> Iterator[Batch]:
        """The good rows in order, `rows` a batch; holds one batch in memory. Raises OperatorError: no good row."""
        self.bad, self.faults, self.missing, self.unknown = 0, [], Counter(), Counter()
        good, sent = self._good_rows(), 0
        while held := list(itertools.islice(good, self.rows)):
            sent += len(held)
            yield self._batch(held)
        if not sent:
            raise OperatorError(f"{self.path}: no row that can be used; {'; '.join(self.faults[:3]) or 'it is empty'}")

    def _own(self, name: str | None) -> str | None:
        """A column that the table names, where this file has it."""
        return name if name in self._file.header else None

    def _columns(self) -> _Columns:
        position = self._file.position
        if self.table is None:
            where = [(position(self.columns.get(f, f)), f) for f in self.features]
            comma = self._file.decimal_comma

            def encode(cells: Sequence[str]) -> Encoded:
                return Encoded([said.number(cells[at], name, decimal_comma=comma) for at, name in where], [], [])
        else:
            names = [c.name for c in self.table.columns]
            encode = Encoder(
                self.table, {n: position(self.columns.get(n, n)) for n in names}, self._file.decimal_comma
            ).row
        label, amount, id_ = (None if name is None else position(name) for name in (self.label, self.amount, self.id))
        return _Columns(encode, label, amount, id_)

    def _good_rows(self) -> Iterator[_Row]:
        recent: dict[str, int] = {}  # id to the number of its row: an id may not come twice within a batch
        count = 0
        for line in self._file.lines():
            try:
                if line.fault is not None:
                    raise line.fault
                row, encoded = self._row(line.cells)
                if self.id is not None:
                    if recent.get(row.id, -1) >= count - count % self.rows:
                        raise Refused(f"{row.id!r} occurs twice in one batch", self.id)
                    if count % self.rows == 0:
                        recent.clear()
                    recent[row.id] = count
            except Refused as exc:
                self._blame(line.number, str(exc))
                continue
            self.missing.update(encoded.missing)
            self.unknown.update(encoded.unknown)
            count += 1
            yield row

    def _blame(self, line: int, reason: str) -> None:
        self.bad += 1
        if self.bad <= FAULTS_KEPT:
            self.faults.append(f"line {line}: {reason}")
            get_logger("producer").warning("bad_csv_row", file=str(self.path), line=line, reason=reason)

    def _row(self, cells: Sequence[str]) -> tuple[_Row, Encoded]:
        where, comma = self._where, self._file.decimal_comma
        encoded = where.encode(cells)
        label, amount = 0, 0.0
        if where.label is not None:
            label = said.label(cells[where.label], self.label or "")
        if where.amount is not None:
            amount = said.number(cells[where.amount], self.amount or "", decimal_comma=comma)
        given = cells[where.id] if where.id is not None else ""
        if where.id is not None and not 1 <= len(given) <= _ID_MAX:
            raise Refused(f"an id has 1 to {_ID_MAX} characters", self.id)
        return _Row(encoded.values, label, amount, given), encoded

    def _batch(self, held: list[_Row]) -> Batch:
        return Batch(
            np.array([r.numbers for r in held], np.float64),
            None if self.label is None else np.array([r.label for r in held], np.int8),
            None if self.id is None else [r.id for r in held],
            None if self.amount is None else [r.amount for r in held],
        )
