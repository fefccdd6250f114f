"""selfheal/experiment/simulate.py, and what the report says of such runs."""

from __future__ import annotations

import msgspec
import pytest

from monitor.export import Run, metrics_csv
from selfheal.experiment.ceiling import ceiling
from selfheal.experiment.evaluate import evaluate
from selfheal.experiment.more import in_processes
from selfheal.experiment.more import simulated as further
from selfheal.experiment.report import report
from selfheal.experiment.rollbacks import rollbacks
from selfheal.experiment.simulate import simulate, stream
from selfheal.experiment.summary import Numbers, Parameters, encoded, of_seed, of_seeds, seeds_csv
from shared.bundle import Bundle

PUBLISHED, STRESS = Parameters(), Parameters(drift_strength=3.5, rollback_f1_drop=0.03)


def simulated(bundle: Bundle, variant: str, parameters: Parameters, seed: int = 42) -> Run:
    return simulate(bundle, stream(seed, variant, parameters), seed=seed, parameters=parameters)[0]


@pytest.fixture(scope="module")
def published(bundle: Bundle) -> Run:
    return simulated(bundle, "clean", PUBLISHED)


def summary_of(bundle: Bundle, parameters: Parameters, seed: int = 42) -> tuple[Numbers, Run]:
    runs, adapters = {}, []
    for variant in ("clean", "as_published"):
        run, found = simulate(bundle, stream(seed, variant, parameters), seed=seed, parameters=parameters)
        runs[variant] = run
        adapters.append(found[run.active])
    outcomes = evaluate(bundle, adapters[0], adapters[1], seed, parameters.drift_strength)
    return of_seed(seed, parameters, runs, outcomes, ceiling(parameters.drift_strength)), runs["clean"]


def test_states_and_registry_are_as_published(published: Run) -> None:
    states = [row.state for row in published.rows]
    assert states[:2] == ["HEALTHY", "HEALTHY"]
    assert states[2] == "DRIFTING"
    assert set(states[2:]) <= {"DRIFTING", "ROLLED_BACK"}
    assert len(published.of_kind("heal-finished")) == 25  # 51 entries with the bundle's own
    assert all(row.settled and row.action.startswith("heal") for row in published.rows)
    assert [e.facts["batch_idx"] for e in published.of_kind("drift-detected")] == [3]


def test_same_seed_same_bytes(bundle: Bundle, published: Run) -> None:
    assert metrics_csv(simulated(bundle, "clean", PUBLISHED).rows) == metrics_csv(published.rows)
    assert metrics_csv(simulated(bundle, "clean", PUBLISHED, seed=43).rows) != metrics_csv(published.rows)


def test_no_wall_clock_in_what_is_told(published: Run) -> None:
    assert {e.at for e in published.events} <= {row.timestamp for row in published.rows}


def test_stress_rolls_back_and_serves_what_the_event_names(bundle: Bundle) -> None:
    run = simulated(bundle, "clean", STRESS)
    found = rollbacks(run)
    assert found
    assert all(r.kept and r.served_next in (r.to_version, None) for r in found)
    assert [row.batch_idx for row in run.rows if row.rolled_back] == [r.batch_idx for r in found]


def test_a_rollback_that_is_not_served_is_seen(bundle: Bundle) -> None:
    run = simulated(bundle, "clean", STRESS)
    k = rollbacks(run)[0].batch_idx
    rows = [msgspec.structs.replace(r, adapter_version="v999") if r.batch_idx == k + 1 else r for r in run.rows]
    broken = rollbacks(msgspec.structs.replace(run, rows=rows))[0]
    assert not broken.kept
    assert broken.served_next == "v999"


def test_summary_keeps_its_contract_for_one_seed_and_for_several(bundle: Bundle) -> None:
    one, _ = summary_of(bundle, PUBLISHED)
    assert one["seeds"] == [42]
    assert set(one["stages"]) == {"clean", "drift", "healed", "healed_as_published"}
    for stage in one["stages"].values():
        assert all(isinstance(stage[name], float) for name in ("accuracy", "precision", "recall", "f1"))
    assert {"mean", "positive_batches", "batches"} <= set(one["lift"])
    assert one["lift"]["batches"] == 25
    assert (one["snapshots"], one["first_drift_batch"]) == (51, 3)
    two, _ = summary_of(bundle, PUBLISHED, seed=43)
    both = msgspec.json.decode(encoded(of_seeds([one, two])))
    assert both["seeds"] == [42, 43]
    accuracy = both["stages"]["healed"]["accuracy"]
    assert set(accuracy) == {"median", "p05", "p95"}
    assert accuracy["median"] == pytest.approx(
        (one["stages"]["healed"]["accuracy"] + two["stages"]["healed"]["accuracy"]) / 2
    )
    assert both["rollbacks"]["p05"] <= both["rollbacks"]["median"] <= both["rollbacks"]["p95"]
    head, *lines = seeds_csv([one, two]).decode().splitlines()
    assert head.startswith("seed,stages.clean.accuracy,")
    assert [line.split(",")[0] for line in lines] == ["42", "43"]
    assert all(len(line.split(",")) == len(head.split(",")) for line in lines)


def test_report_shows_published_rows_ceilings_and_rollbacks(bundle: Bundle) -> None:
    summary, run = summary_of(bundle, PUBLISHED)
    text = report(summary, PUBLISHED, ceiling(2.2), command="c", rollbacks=rollbacks(run))
    assert "| *published* | *0.724* | *0.224* | *0.340* | *0.270* | 51/673/177/99 |" in text
    assert "| best possible F1 | 0.295 |" in text
    assert "| flag nobody | 0.750 |" in text
    stress, run = summary_of(bundle, STRESS)
    text = report(stress, STRESS, ceiling(3.5), command="c", rollbacks=rollbacks(run), stress=True)
    assert "*published*" not in text  # its numbers are for another drift
    assert "restores v21 of batch 10, F1 0.408" in text
    first = rollbacks(run)[0]
    assert f"| {first.batch_idx} | {first.from_version} | {first.to_version} |" in text


def test_further_seeds_come_from_processes_as_they_would_here(capfd: pytest.CaptureFixture[str]) -> None:
    few, seen = Parameters(batches=3), []
    found = in_processes(few, first=1_000, count=2, processes=2, on_seed=lambda: seen.append(1))
    assert [each["seeds"] for each in found] == [[1_000], [1_001]]
    assert len(seen) == 2
    assert capfd.readouterr().err == ""
    assert msgspec.json.encode(found[1]) == msgspec.json.encode(next(further(1_001, 1, few)))
