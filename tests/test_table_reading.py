"""A CSV file as Excel, databases and strangers write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfheal.table.loading import Roles, load, moment
from shared.errors import OperatorError, Refused
from shared.table.reading import CsvFile, sniffed


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "t.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("a,b;c,d\n", ","), ("a;b;c,d\n1,5;2;3\n", ";"), ("a\tb\n", "\t"), ("a|b\n", "|"), ("a\n", ","), ("", ","),
     ('"x;y;z;w",b,c\n', ",")],
)  # fmt: skip
def test_the_delimiter_is_the_one_that_splits_the_header_most(text: str, delimiter: str) -> None:
    assert sniffed(text) == delimiter


def test_a_file_from_excel(tmp_path: Path) -> None:
    path = written(tmp_path, '"Betrag; EUR";art; y \r\n"1,5";"a ""b""\r\nc";0\r\n2;;yes\r\n;x;NO\r\n', "utf-8-sig")
    file = CsvFile(path)
    assert (file.header, file.delimiter, file.decimal_comma) == (["Betrag; EUR", "art", "y"], ";", True)
    loaded = load(file, Roles("y"))
    np.testing.assert_array_equal(loaded.numbers["Betrag; EUR"], [1.5, 2, np.nan])
    assert loaded.codes["art"].values == ['a "b"\r\nc', "x"]
    assert loaded.codes["art"].codes.tolist() == [0, -1, 1]
    assert (loaded.labels.tolist(), loaded.bad) == ([0, 1, 0], 0)


def test_bad_rows_are_left_out_with_their_line(tmp_path: Path) -> None:
    good = "".join(f"{i},x,{i % 2}\n" for i in range(20))
    path = written(tmp_path, "n,c,y\n" + good + "oops,x,1\n1,x\n1,x,2\n1,x,\n")
    loaded = load(CsvFile(path), Roles("y"))
    assert (loaded.rows, loaded.bad) == (20, 4)
    assert loaded.faults == [
        "line 22: n: 'oops' is not a number", "line 23: 2 cells, the header has 3",
        "line 24: y: '2' is neither 0 nor 1", "line 25: y: '' is not a number",
    ]  # fmt: skip


def test_rows_are_put_in_order_of_time(tmp_path: Path) -> None:
    path = written(tmp_path, "t,n,y\n2026-01-03,3,0\n2026-01-01T10:00:00Z,1,1\n2026-01-02 00:00,,0\n")
    loaded = load(CsvFile(path), Roles("y", time="t"))
    np.testing.assert_array_equal(loaded.numbers["n"], [1, np.nan, 3])
    assert loaded.labels.tolist() == [1, 0, 0]
    assert moment("1700000000", "t") == 1_700_000_000
    for bad in ("yesterday", "nan", "03/01/2026"):
        with pytest.raises(Refused, match="t: "):
            moment(bad, "t")


def test_numbers_that_are_names(tmp_path: Path) -> None:
    path = written(tmp_path, "mcc,n,y\n5411,1,0\n5999,2,1\n")
    loaded = load(CsvFile(path), Roles("y", categorical=("mcc",)))
    assert (loaded.codes["mcc"].values, list(loaded.numbers)) == (["5411", "5999"], ["n"])


def test_columns_without_a_name_of_their_own_are_left_out(tmp_path: Path) -> None:
    loaded = load(CsvFile(written(tmp_path, "a,a,,b,y\n1,2,3,4,0\n1,2,3,4,1\n")), Roles("y"))
    assert loaded.unnamed == {"a": "two columns have this name", "": "it has no name"}
    assert loaded.order == ["b"]


@pytest.mark.parametrize(
    ("text", "roles", "why"),
    [
        ("a,y\n1,0\n", Roles("z"), "no column 'z'; the header has a, y"),
        ("a;y\n1;0\n", Roles("y", time="when"), "no column 'when'"),
        ("y,y\n1,0\n", Roles("y"), "more than one column 'y'"),
        ("y\n1\n", Roles("y"), "no column is left beside 'y'"),
        ("a,y\n", Roles("y"), "a header and no rows"),
        ("a,y\n1,good\n2,bad\n", Roles("y"), r"2 of 2 rows cannot be used; line 2: y: 'good'.*--label"),
        ("", Roles("y"), "no column 'y'"),
    ],
)
def test_a_file_that_does_not_serve(tmp_path: Path, text: str, roles: Roles, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        load(CsvFile(written(tmp_path, text)), roles)


def test_a_delimiter_is_one_character(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="--delimiter"):
        CsvFile(written(tmp_path, "a,y\n"), "::")
