"""A CSV file row by row. Its dialect is looked for in the first lines; a row that cannot be read is told, not fatal."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from shared.errors import OperatorError, Refused

if TYPE_CHECKING:
    from _csv import Reader

DELIMITERS = ",;\t|"
PEEK_CHARS = 65_536


class Line(NamedTuple):
    """Of the file: its last line's number, and its cells; fault: why it cannot be used, in place of them."""

    number: int
    cells: list[str]
    fault: Refused | None = None


class CsvFile:
    """A file with a header row. delimiter: None looks for the one that splits the header most often.

    header: column names as written, blanks around them removed. Raises OperatorError: no such file, no header, or a
    delimiter of more than one character.
    """

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise OperatorError(f"--delimiter {delimiter!r}: give one character, as in --delimiter ';'")
        self.path = path
        with self._open() as text:
            peek = text.read(PEEK_CHARS)
        self.delimiter = delimiter or sniffed(peek)
        with self._open() as text:
            try:
                self.header = [name.strip() for name in next(self._reader(text), [])]
            except csv.Error as exc:
                raise OperatorError(f"{path}: the header row cannot be read: {exc}") from exc

    @property
    def decimal_comma(self) -> bool:
        """May 12,5 be a number? Only where the comma does not part cells."""
        return self.delimiter != ","

    def position(self, name: str) -> int:
        """Of a column in the header. Raises OperatorError where there is none of this name, or two."""
        if self.header.count(name) != 1:
            found = "no" if name not in self.header else "more than one"
            seen = ", ".join(self.header)[:300]
            hint = "" if len(self.header) > 1 else "; is --delimiter right?"
            raise OperatorError(f"{self.path}: {found} column {name!r}; the header has {seen}{hint}")
        return self.header.index(name)

    def lines(self) -> Iterator[Line]:
        """Every row but empty ones, as they are asked for."""
        with self._open() as text:
            reader = self._reader(text)
            next(reader, None)
            width = len(self.header)
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as exc:
                    yield Line(reader.line_num, [], Refused(str(exc)))
                    continue
                if cells is None:
                    return
                if not cells:
                    continue  # an empty line, as many files end with
                wrong = None if len(cells) == width else Refused(f"{len(cells)} cells, the header has {width}")
                yield Line(reader.line_num, cells, wrong)

    def _open(self) -> TextIO:
        try:
            # A byte that is no UTF-8 spoils its own cell, not the file; utf-8-sig drops the mark that Excel writes.
            return self.path.open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as exc:
            raise OperatorError(f"cannot read {self.path}: {exc.strerror}") from exc

    def _reader(self, text: TextIO) -> Reader:
        return csv.reader(text, delimiter=self.delimiter)


def sniffed(peek: str) -> str:
    """The delimiter that splits the first row into most cells; a comma where none does."""

    def cells(delimiter: str) -> int:
        try:
            return len(next(csv.reader(peek.splitlines(), delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=cells)
