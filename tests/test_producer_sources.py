"""The CSV source: columns, bad rows with their lines, batches as they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from producer.csv_source import CsvSource
from producer.sources import Synthetic
from shared.errors import OperatorError

HEADER = "id,when,Amount,x,y,Class\n"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "card sales-1.csv"
    path.write_text(text, encoding)
    return path


def source(path: Path, rows: int = 2) -> CsvSource:
    return CsvSource(path, ["b", "a"], rows, {"b": "y", "a": "x"}, label="Class", amount="Amount", id="id")


def test_columns_are_mapped_and_batches_cut(tmp_path: Path) -> None:
    text = HEADER + 't1,0,9.5,1,2,0\nt2,0,1,3,4,"1"\n\nt3,0,2,5,6.25,0.0\n'
    csv = source(written(tmp_path, text, "utf-8-sig"))
    first, last = csv.batches()
    assert first.rows.tolist() == [[2, 1], [4, 3]]
    assert first.labels is not None
    assert first.labels.tolist() == [0, 1]
    assert (first.ids, first.amounts) == (["t1", "t2"], [9.5, 1.0])
    assert last.rows.tolist() == [[6.25, 5]]
    assert (csv.bad, csv.name, csv.labelled) == (0, "card-sales-1", True)


def test_without_optional_columns(tmp_path: Path) -> None:
    csv = CsvSource(written(tmp_path, "a,b\n1,2\n"), ["a", "b"])
    (batch,) = csv.batches()
    assert (batch.labels, batch.ids, batch.amounts) == (None, None, None)
    assert not csv.labelled


def test_bad_rows_are_counted_with_their_line_and_left_out(tmp_path: Path) -> None:
    lines = [
        "t1,0,1,1,2,0",
        "t2,0,1,oops,2,0",
        "t3,0,1,nan,2,0",
        "t4,0,1,1e300,2,0",
        "t5,0,1,1,2,7",
        "t6,0,1,1,2",
        "t1,0,1,1,2,0",
        ",0,1,1,2,0",
        't8,"two\nlines",1,1,2,1',
        "t1,0,,1,2,1",
        "t1,0,1,1,2,1",
    ]
    csv = source(written(tmp_path, HEADER + "\n".join(lines) + "\n"))
    ids = [list(b.ids or ()) for b in csv.batches()]
    assert ids == [["t1", "t8"], ["t1"]]  # an id may come again in a later batch
    assert csv.bad == 8
    assert csv.faults == [
        "line 3: a: 'oops' is not a number",
        "line 4: a: 'nan' is not a finite number of single precision",
        "line 5: a: '1e300' is not a finite number of single precision",
        "line 6: Class: '7' is neither 0 nor 1",
        "line 7: 5 cells, the header has 6",
        "line 8: id: 't1' occurs twice in one batch",
        "line 9: id: an id has 1 to 200 characters",
        "line 12: Amount: '' is not a number",
    ]


def test_bytes_that_are_no_text_and_huge_cells_spoil_their_own_row(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,\xff\xfe\n" + b"9" * 200_000 + b",1\n3,4\n")
    csv = CsvSource(path, ["a", "b"])
    (batch,) = csv.batches()
    assert batch.rows.tolist() == [[3, 4]]
    assert csv.bad == 2


def test_the_file_is_read_as_batches_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n" + "1\n" * 10)
    batches = CsvSource(path, ["a"], 5).batches()
    next(batches)
    with path.open("a") as f:
        f.write("2\n" * 200_000)
    assert sum(len(b.rows) for b in batches) == 200_005


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x,z\n1,2\n", "no column 'y'; the header has x, z"),
        ("x,y,y\n1,2,3\n", "more than one column 'y'"),
        ("", "no column 'y'"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_at_the_start(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        CsvSource(written(tmp_path, text), ["b", "a"], columns={"b": "y", "a": "x"})


def test_no_file_no_good_row_no_feature(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"cannot read .*none\.csv: No such file"):
        CsvSource(tmp_path / "none.csv", ["a"])
    with pytest.raises(OperatorError, match="no row that can be used; line 2: a: 'q' is not a number"):
        list(CsvSource(written(tmp_path, "a\nq\n"), ["a"]).batches())
    with pytest.raises(OperatorError, match="no feature c in the bundle"):
        CsvSource(written(tmp_path, "a\n1\n"), ["a"], columns={"c": "a"})


def test_sizes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="1001 rows a batch: give 1 to 1000"):
        Synthetic(1, 1001)
    with pytest.raises(OperatorError, match="0 rows a batch"):
        CsvSource(tmp_path / "x", ["a"], 0)
    with pytest.raises(OperatorError, match="seed -1"):
        Synthetic(-1)


def test_a_good_csv_gives_single_precision_values_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((20, 2)).astype(np.float32)
    text = "a,b\n" + "\n".join(f"{r[0]},{r[1]}" for r in rows) + "\n"
    (batch,) = CsvSource(written(tmp_path, text), ["a", "b"]).batches()
    np.testing.assert_array_equal(batch.rows.astype(np.float32), rows)
