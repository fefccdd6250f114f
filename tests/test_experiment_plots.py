"""monitor/plots.py: eight pictures that say what is seen."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from matplotlib.figure import Figure

from monitor import panels, plots
from monitor.export import Run
from selfheal.experiment.simulate import simulate, stream
from selfheal.experiment.summary import Parameters
from shared.bundle import Bundle, Scores

STRESS = Parameters(drift_strength=3.5, rollback_f1_drop=0.03, batches=12)
STAGES = {name: Scores(accuracy=0.9, precision=0.5, recall=0.25, f1=1 / 3) for name in ("clean", "drift", "healed")}


@pytest.fixture(scope="module")
def run(bundle: Bundle) -> Run:
    return simulate(bundle, stream(42, "clean", STRESS), seed=42, parameters=STRESS)[0]


def test_eight_pictures_wide_enough_to_read(run: Run, tmp_path: Path) -> None:
    plots.draw(run, STAGES, tmp_path, feature="V14", all_negative=0.85)
    found = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(found) == set(plots.NAMES)
    for data in found.values():
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") >= 1_000


def test_titles_tell_the_numbers(run: Run) -> None:
    axes = Figure().add_subplot
    better = sum((row.acc_lift or 0) > 0 for row in run.rows)
    back = len(run.of_kind("rolled-back"))
    assert back
    assert panels.accuracy(axes(), run.rows) == f"Served accuracy beats the frozen network in {better} of 12 batches"
    assert panels.fidi(axes(), run.rows, 1.0, "V14") == "FIDI says that V14 drifts from batch 3 on"
    assert panels.fidi(axes(), run.rows, 99.0, "V14") == "FIDI stays under its threshold: no drift of V14 is seen"
    assert f"{back} rollback" in panels.states(axes(), run.rows)
    assert f"{back} rollback" in panels.f1(axes(), run.rows, run.events)
    best = max(run.of_kind("heal-finished"), key=lambda e: e.facts["f1_after"]).facts["f1_after"]
    assert f"(F1 {best:.3f})" in panels.registry(axes(), run.events)


def test_a_run_without_heals_or_scores_is_drawn_too_and_the_same_each_time(run: Run, tmp_path: Path) -> None:
    row = run.rows[0]
    empty = {n: None for n in row.__struct_fields__ if getattr(row, n) is None or n.startswith(("acc", "f1"))}
    bare = msgspec.structs.replace(row, action="none", **empty)
    nothing = Run(rows=[bare], events=[], thresholds={}, active="v1")
    once, twice = (plots.draw(nothing, {}, tmp_path / name, feature="V14") for name in "ab")
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in twice]
    with pytest.raises(ValueError, match="without a batch"):
        plots.draw(Run(rows=[], events=[], thresholds={}, active="v1"), {}, tmp_path, feature="V14")


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    axes = Figure().add_subplot()
    panels.label_ends(axes, [(0.5, "a", "k"), (0.5, "b", "k"), (0.52, "c", "k")], 0.1)
    at = sorted(text.get_position()[1] for text in axes.texts)
    assert min(b - a for a, b in itertools.pairwise(at)) > 0.08
