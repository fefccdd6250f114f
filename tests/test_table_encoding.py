"""Cells to features: the same in training, which takes columns, and in the producer, which takes rows."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.table.choosing import matrix
from selfheal.table.loading import Roles, load
from shared.errors import Refused
from shared.table import cells
from shared.table.encoding import Encoder, commonness, encoded
from shared.table.reading import CsvFile
from shared.table.schema import Categories, Frequencies, Numeric, Table

TABLE = Table(
    columns=[
        Numeric(name="n", median=2.5, flagged=True), Numeric(name="m", median=-1.0),
        Categories(name="c", values=["a", "missing"]), Frequencies(name="f", classes={"a": 12, "b": 3}),
    ],
    label="y",
)  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from(["", "NA", " nan ", "?", "null"]), st.floats(-1e30, 1e30).map(repr), st.integers(-9, 9).map(str)
)
WORDS = st.sampled_from(["a", "b", " a ", "other", "missing", "", "n/a", "Ä", "x" * 150, 'quo"te', "with, comma"])


@given(st.lists(st.tuples(NUMBERS, NUMBERS, WORDS, WORDS, st.sampled_from("01")), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_rows_one_by_one_are_the_matrix_that_trained(rows: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([("n", "m", "c", "f", "y"), *rows])
        file = CsvFile(path)
        loaded = load(file, Roles("y", categorical=("c", "f")))
        encoder = Encoder(TABLE, {c.name: file.position(c.name) for c in TABLE.columns})
        one_by_one = [encoder.row(line.cells).values for line in file.lines()]
    assert loaded.bad == 0
    np.testing.assert_array_equal(matrix(loaded, TABLE), np.array(one_by_one).astype(np.float32))
    assert len(one_by_one[0]) == len(TABLE.features())


def test_features_have_the_names_of_their_columns() -> None:
    assert TABLE.features() == ["n", "n is missing", "m", "c=a", "c=missing", "c=other", "how common f"]


def test_missing_and_unknown_cells_are_stated() -> None:
    encoder = Encoder(TABLE, {"n": 0, "m": 1, "c": 2, "f": 3})
    row = encoder.row(["", "7", "new", "new"])
    assert row.values == [2.5, 1, 7, 0, 0, 1, 0]
    assert (row.missing, row.unknown) == (["n"], ["c", "f"])
    assert encoder.row(["1", "1", "", "b"]) == ([1, 0, 1, 0, 1, 0, 3], ["c"], [])


@pytest.mark.parametrize("cell", ["12 EUR", "inf", "1e300", "-nan", "1,5", "0x1f"])
def test_a_number_that_is_none_is_refused_by_column(cell: str) -> None:
    with pytest.raises(Refused, match=r"m: .* not a"):
        Encoder(TABLE, {"n": 0, "m": 1, "c": 2, "f": 3}).row(["1", cell, "a", "a"])


def test_a_decimal_comma_only_where_the_comma_parts_no_cells() -> None:
    assert cells.number("-1,5", "x", decimal_comma=True) == -1.5
    assert cells.looks_numeric("1,5", decimal_comma=True)
    with pytest.raises(Refused):
        cells.number("1,234,5", "x", decimal_comma=True)


@pytest.mark.parametrize(("cell", "value"), [("1", 1), ("0.0", 0), ("TRUE", 1), (" no ", 0), ("f", 0), ("Y", 1)])
def test_labels_as_people_write_them(cell: str, value: int) -> None:
    assert cells.label(cell, "y") == value


@given(st.floats(1e-9, 1))
def test_commonness_halves_with_the_share(share: float) -> None:
    assert 1 <= commonness(share) <= 12
    assert commonness(share / 2) == max(commonness(share) - 1, 1)


def test_a_number_is_no_category() -> None:
    with pytest.raises(TypeError, match="n holds numbers"):
        encoded(TABLE.columns[0], "a")
