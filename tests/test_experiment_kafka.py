"""The experiment over a real Kafka: four processes, the same bytes as the simulation and as any other run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from monitor.export import metrics_csv
from monitor.plots import NAMES
from selfheal.experiment.reference import run_reference
from selfheal.experiment.runs import run_variant
from selfheal.experiment.simulate import simulate, stream
from selfheal.experiment.summary import Parameters
from shared import bundle as bundles
from shared.kafka import list_topics

FEW = Parameters(batches=6)


@pytest.mark.broker
@pytest.mark.timeout(300)
def test_run_folder_is_complete_and_equals_the_simulation_and_a_second_run(
    kafka: dict[str, str], prefix: str, tmp_path: Path
) -> None:
    said = io.StringIO()
    folder = run_reference(kafka, Console(file=said, width=200), batches=6, out=tmp_path / "run", keep=False)
    for name in ("metrics.csv", "events.json", "threshold_config.json", "summary.json", "report.md"):
        assert (folder / name).stat().st_size > 0
    assert {p.stem for p in (folder / "plots").iterdir()} == set(NAMES)
    assert "seed 42: accuracy" in said.getvalue()

    bundle = bundles.load(folder / "bundle")
    for variant, sub in (("clean", "."), ("as_published", "as-published")):
        expected, _ = simulate(bundle, stream(42, variant, FEW), seed=42, parameters=FEW)
        assert (folder / sub / "metrics.csv").read_bytes() == metrics_csv(expected.rows)
        told = [(e["kind"], e["at"]) for e in json.loads((folder / sub / "events.json").read_text())]
        assert told == [(e.kind, e.at) for e in expected.events]

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["lift"]["batches"] == 6
    assert summary["stages"]["clean"]["accuracy"] == bundle.manifest.clean.accuracy
    thresholds = json.loads((folder / "threshold_config.json").read_text())
    assert (thresholds["rollback_f1_drop"], thresholds["health_window"], thresholds["conflict_min"]) == (0.08, 5, 5)
    assert not [name for name in list_topics(kafka) if name.startswith("reference-")]

    again = tmp_path / "again"
    run_variant(kafka, prefix, folder / "bundle", again, seed=42, variant="clean", parameters=FEW)
    for name in ("metrics.csv", "events.json", "threshold_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
