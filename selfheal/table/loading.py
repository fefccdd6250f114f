"""A CSV file as columns in memory: numbers as float64, categories as codes. Rows that cannot be used are left out."""

from __future__ import annotations

import itertools
import math
from array import array
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.alignment import Floats
from shared.errors import OperatorError, Refused
from shared.table import cells as said
from shared.table.reading import CsvFile

TYPED_ROWS = 20_000  # rows at the start of the file that settle which columns hold numbers
NUMERIC = 0.95  # of the cells that are not empty
BAD = 0.2  # share of rows left out above which the file is not what we took it for
FAULTS_KEPT = 5
LONGEST = 100  # characters of a category; longer ones are rare ones
CELLS_MAX = 200_000_000  # numbers and codes held in memory: 1.6 GB
TOO_LONG = ""


class Roles(NamedTuple):
    """Columns by name. label: fraud or not. time: what orders the rows, None for their order in the file. categorical:
    numbers that are names. ignored: not looked at. wanted: others that must be there."""

    label: str
    time: str | None = None
    categorical: Collection[str] = ()
    ignored: Collection[str] = ()
    wanted: Collection[str] = ()


@dataclass
class Codes:
    """A column of categories: codes (n,), -1 where the cell was empty, and what each code stands for."""

    codes: npt.NDArray[np.int64]
    values: list[str]


@dataclass
class Loaded:
    """The rows that can be used, earliest first. numbers: NaN where the cell was empty. unnamed: columns of the header
    that cannot be told apart, with the reason. bad: rows left out; faults: the first of them, with their line."""

    labels: npt.NDArray[np.int8]
    numbers: dict[str, Floats]
    codes: dict[str, Codes]
    unnamed: dict[str, str]
    bad: int
    faults: list[str]
    order: list[str] = field(default_factory=list)  # columns as they stand in the file

    @property
    def rows(self) -> int:
        return len(self.labels)


def load(file: CsvFile, roles: Roles) -> Loaded:
    """Read the whole file. Raises OperatorError: a column that is not there, no rows, more than a fifth of them bad,
    or more than fits in memory."""
    label = file.position(roles.label)
    time = None if roles.time is None else file.position(roles.time)
    for name in [*roles.categorical, *roles.ignored, *roles.wanted]:
        file.position(name)
    unnamed = {n: "two columns have this name" if n else "it has no name" for n in file.header if _vague(file, n)}
    left = {roles.label, roles.time, *roles.ignored, *unnamed}
    columns = {n: i for i, n in enumerate(file.header) if n not in left}
    if not columns:
        raise OperatorError(f"{file.path}: no column is left beside {roles.label!r}; is --delimiter right?")
    numeric = _numeric(file, {n: i for n, i in columns.items() if n not in roles.categorical})
    reader = _Reader(file, numeric, {n: i for n, i in columns.items() if n not in numeric}, (label, time), roles)
    return reader.read(unnamed, list(columns))


def _vague(file: CsvFile, name: str) -> bool:
    return not name or file.header.count(name) > 1


def _numeric(file: CsvFile, columns: dict[str, int]) -> dict[str, int]:
    """Those whose cells are written as numbers, 95% of what is not empty; all empty counts as numbers too."""
    filled, numbers = Counter[str](), Counter[str]()
    for line in itertools.islice(file.lines(), TYPED_ROWS):
        if line.fault is None:
            for name, at in columns.items():
                cell = line.cells[at]
                if not said.missing(cell):
                    filled[name] += 1
                    numbers[name] += said.looks_numeric(cell, decimal_comma=file.decimal_comma)
    return {n: i for n, i in columns.items() if numbers[n] >= NUMERIC * filled[n]}


class _Reader:
    """One pass over the file."""

    def __init__(
        self, file: CsvFile, numeric: dict[str, int], other: dict[str, int], where: tuple[int, int | None], roles: Roles
    ) -> None:
        self._file, self._roles = file, roles
        self._label, self._time = where
        self._numeric = [(n, i, array("d")) for n, i in numeric.items()]
        self._other: list[tuple[str, int, array[int], dict[str, int]]] = [
            (n, i, array("q"), {}) for n, i in other.items()
        ]
        self._labels, self._times = array("b"), array("d")
        self._bad, self._faults, self._blamed = 0, list[str](), Counter[str]()

    def read(self, unnamed: dict[str, str], order: list[str]) -> Loaded:
        """All of it; rows sorted by time, those of one time as they stand in the file."""
        width, comma = len(order), self._file.decimal_comma
        for line in self._file.lines():
            try:
                if line.fault is not None:
                    raise line.fault
                cells = line.cells
                label = said.label(cells[self._label], self._roles.label)
                when = 0.0 if self._time is None else moment(cells[self._time], self._roles.time or "")
                numbers = [_number(cells[at], name, comma) for name, at, _ in self._numeric]
            except Refused as exc:
                self._blame(line.number, exc)
                continue
            self._labels.append(label)
            self._times.append(when)
            for (_, _, held), number in zip(self._numeric, numbers, strict=True):
                held.append(number)
            for _, at, codes, known in self._other:
                cell = cells[at].strip()
                value = cell if len(cell) <= LONGEST else TOO_LONG
                codes.append(-1 if said.missing(cell) else known.setdefault(value, len(known)))
            if len(self._labels) * width > CELLS_MAX:
                raise OperatorError(f"{self._file.path}: more than {CELLS_MAX:,} cells; give fewer rows, or --ignore")
        return self._sorted(unnamed, order)

    def _sorted(self, unnamed: dict[str, str], order: list[str]) -> Loaded:
        rows, path = len(self._labels), self._file.path
        if self._bad > BAD * (rows + self._bad):
            blamed = ", ".join(f"{name} ({count})" for name, count in self._blamed.most_common(3))
            raise OperatorError(
                f"{path}: {self._bad} of {rows + self._bad} rows cannot be used; {'; '.join(self._faults[:3])}. Blamed "
                f"most: {blamed}. Is --delimiter right, is --label a column of 0 and 1, or is a column of names to be "
                "given as --categorical or --ignore?"
            )
        if not rows:
            raise OperatorError(f"{path}: it has a header and no rows")
        by_time = np.argsort(np.frombuffer(self._times), kind="stable")
        return Loaded(
            labels=np.frombuffer(self._labels, np.int8)[by_time],
            numbers={name: np.frombuffer(held)[by_time] for name, _, held in self._numeric},
            codes={n: Codes(np.frombuffer(held, np.int64)[by_time], list(known)) for n, _, held, known in self._other},
            unnamed=unnamed, bad=self._bad, faults=self._faults, order=order,
        )  # fmt: skip

    def _blame(self, line: int, fault: Refused) -> None:
        self._bad += 1
        self._blamed[fault.field or "the row"] += 1
        if self._bad <= FAULTS_KEPT:
            self._faults.append(f"line {line}: {fault}")


def _number(cell: str, name: str, comma: bool) -> float:
    """NaN where it is missing. Raises Refused."""
    try:
        value = float(cell)
        if abs(value) <= said.FLOAT32_MAX:
            return value
    except ValueError:
        pass
    return math.nan if said.missing(cell) else said.number(cell, name, decimal_comma=comma)


def moment(cell: str, name: str) -> float:
    """A time as a number: as it is, or in seconds since 1970 where it is ISO 8601 (UTC unless it says otherwise).
    Raises Refused."""
    try:
        value = float(cell)
    except ValueError:
        try:
            read = datetime.fromisoformat(cell.strip())
        except ValueError:
            raise Refused(f"{cell[:40]!r} is no time: write ISO 8601 (2026-01-31T12:00:00) or a number", name) from None
        value = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise Refused(f"{cell[:40]!r} is no time", name)
    return value


def is_date(value: str) -> bool:
    """Is it written as a date, ISO 8601 or as people do?"""
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return any(_reads(value, form) for form in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d"))
    return True


def _reads(value: str, form: str) -> bool:
    try:
        datetime.strptime(value.split(" ")[0], form).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
