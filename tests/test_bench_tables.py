"""What the table of real tables says of a stream."""

from __future__ import annotations

import numpy as np
import pytest

from bench.tables import Played, cell, drifts, matrix


def played(frozen: float, healed: float, first: int | None = 2, table: str = "t", drift: str = "d") -> Played:
    return Played(
        table=table, drift=drift, frozen=frozen, healed=healed, best=0.1, blind=0.5, first=first, verdict="units"
    )


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ([played(0.5, 0.1)], "1.00"),
        ([played(0.5, 0.1), played(0.5, 0.3)], "0.75"),
        ([played(0.5, 0.1, first=5)], "1.00 (5)"),
        ([played(0.5, 0.5, first=None)], "refused"),
        ([played(0.11, 0.5)], "-"),  # hardly anything was at stake
    ],
)
def test_a_cell(streams: list[Played], said: str) -> None:
    assert cell(streams) == said


def test_a_row_for_each_drift_and_a_column_for_each_table() -> None:
    lines = matrix([played(0.5, 0.1, table=t, drift=d) for t in ("a", "b") for d in ("x", "y")])
    assert lines == ["| | a | b |", "|---|---:|---:|", "| x | 1.00 | 1.00 |", "| y | 1.00 | 1.00 |"]
    assert matrix([played(0.5, 0.1, drift="x"), played(0.5, 0.1, table="b")])[-1] == "| d | - | 1.00 |"


def test_drifts_do_what_they_are_called_and_leave_the_rows_alone() -> None:
    rows = np.array([[1.0, 10.0, 5.0], [2.0, 20.0, 5.0], [3.0, 30.0, 5.0]])
    before = rows.copy()
    found = {d.name: d for d in drifts(rows, [1, 0], [2])}
    assert found["1st x100"].change(rows)[:, 1].tolist() == [1_000.0, 2_000.0, 3_000.0]
    assert found["2nd x10"].change(rows)[:, 0].tolist() == [10.0, 20.0, 30.0]
    assert found["1st and 2nd traded"].change(rows).tolist() == [[10.0, 1.0, 5.0], [20.0, 2.0, 5.0], [30.0, 3.0, 5.0]]
    assert set(found["1st dark"].change(rows)[:, 1]) == {0.0}
    assert found["fraud x3"].rate == 3.0
    assert found["few values x10"].change(rows)[:, 2].tolist() == [50.0, 50.0, 50.0]
    assert [d.name for d in drifts(rows, [1, 0], []) if "few" in d.name] == []
    assert (rows == before).all()
