"""One seed through the pipeline in memory: what rows alone show is undone, what they do not show is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from producer.drift import Profile, Swap, rows_at
from producer.drift_text import parse
from producer.generator import REFERENCE
from producer.labels import LabelPlan
from producer.scenarios import CLEAN, find
from producer.sources import Synthetic
from selfheal.gauntlet.play import play_quiet
from selfheal.gauntlet.quiet import Quiet, together
from selfheal.gauntlet.report import read
from selfheal.gauntlet.tables import quiet_table
from selfheal.gauntlet.told import in_memory
from selfheal.gauntlet.world import DRIFTED_LABELLED, arrivals, bayes, gains, variant
from shared.bundle import Costs
from shared.errors import OperatorError


@pytest.mark.timeout(300)
def test_a_shift_is_undone_and_a_new_mechanism_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_memory(("S1", "S9"), 100, 1, 0, 1, tmp_path)
    found = read(tmp_path).scenarios
    shift, mechanism = found["S1"], found["S9"]
    assert shift.recovery_mean is not None
    assert shift.recovery_mean > 0.95
    assert shift.first_heal_max is not None
    assert shift.first_heal_max <= 5
    assert (shift.healed_seeds, shift.refused, mechanism.refused) == (1, 0.0, 1.0)
    assert mechanism.verdict_last == 1.0
    assert max(shift.worst_harm_accuracy, mechanism.worst_harm_accuracy) <= 0.005
    ways = shift.ways
    assert ways["published"].accuracy < 0.8 < ways["all_negative"].accuracy < ways["healed"].accuracy
    assert ways["healed"].cost < 0.3 < ways["frozen"].cost
    assert ways["healed"].precision_at_k > 0.8
    assert ways["all_negative"].recall_at_budget == pytest.approx(0.1, abs=1e-9)  # nobody stands out: chance
    told = json.loads((tmp_path / "gauntlet.json").read_text())
    assert set(told["scenarios"]["S1"]) >= {
        "recovery_mean", "recovery_min", "first_heal_median", "verdict_accuracy", "worst_harm_accuracy",
        "worst_harm_cost",
    }  # fmt: skip
    assert len(told["scenarios"]["S1"]["curve"]["healed"]) == 50
    assert (tmp_path / "report.html").stat().st_size > 0
    said = {line.partition(" ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert f" {shift.recovery_mean:.3f} (" in said["S1"]
    assert " 100.0% " in said["S9"]


@pytest.mark.timeout(300)
def test_quiet_streams_with_and_without_labels_leave_the_network_alone() -> None:
    plain, labelled = play_quiet(300, 100, processes=1)
    for found in (plain, labelled):
        assert (found.batches, found.false_promotions, found.false_rollbacks, found.served) == (50, 0, 0, 0)
    assert "50 quiet batches with labels: " in quiet_table([plain, labelled])


def test_sums_over_quiet_streams() -> None:
    streams = [
        Quiet(labelled=True, batches=10, false_promotions=1, harm_cost=0.5),
        Quiet(labelled=False, batches=10, false_promotions=7),
        Quiet(labelled=True, batches=20, false_promotions=2, harm_cost=0.25),
    ]
    assert together(streams, labelled=True) == Quiet(labelled=True, batches=30, false_promotions=3, harm_cost=0.75)


def test_variants_by_name() -> None:
    assert (variant("S9L").drifted, variant("S9L").labels.delay, variant("S1").labels) == (
        DRIFTED_LABELLED, 20, LabelPlan(delay=None),
    )  # fmt: skip
    both = variant("S7t3L", 5)
    assert (both.plain, both.labelled, both.drifted, both.scene.name) == ("S7", True, 5, "S7t3")
    for name in ("S99", "reference", "L", "S1x"):
        with pytest.raises(OperatorError, match="S14"):
            variant(name)


def test_the_stream_is_what_the_producer_sends() -> None:
    for name in ("S8", "S15", "S4t3"):
        scene = find(name)
        source = Synthetic(5, 100, scene.steps, scene.generator, scene.exact)
        stream = list(arrivals(scene, 5, lambda x: np.zeros(len(x)), CLEAN + 2))
        for k, arrival in enumerate(stream, start=1):
            batch = source.batch(k)
            assert np.array_equal(arrival.x, batch.rows.astype(np.float32))
            assert batch.labels is not None
            assert np.array_equal(arrival.y, batch.labels)
            assert (batch.amounts is not None) == name.endswith("t3")


def test_heavy_tails_are_heavy_and_cost_money() -> None:
    heavy, normal = find("s0T3"), find("S0")
    x = Synthetic(1, 1_000, generator=heavy.generator).batch(1)
    assert x.amounts is not None
    assert np.abs(x.rows).max() > 8 > 6 > np.abs(Synthetic(1, 1_000, generator=normal.generator).batch(1).rows).max()
    assert np.median(x.amounts) == pytest.approx(40, rel=0.2)
    assert np.mean(x.amounts) > 1.5 * np.median(x.amounts)


def test_swapped_columns() -> None:
    rows = np.arange(8.0).reshape(2, 4)
    steps = (Swap("a", "c"), Swap("c", "d", Profile(first=2)))
    assert rows_at(steps, "abcd", 1, rows, None).tolist() == [[2, 1, 0, 3], [6, 5, 4, 7]]
    assert rows_at(steps, "abcd", 2, rows, None).tolist() == [[2, 1, 3, 0], [6, 5, 7, 4]]
    assert parse(["swap:a:c", "swap:c:d:from=2"]) == steps
    with pytest.raises(OperatorError, match="swap happens at once"):
        parse(["swap:a:c:over=3"])


def test_what_the_oracle_gains_is_known_before_any_batch_is_drawn() -> None:
    scene = find("S2")
    truth = gains(scene, 40, lambda x: bayes(REFERENCE, np.asarray(x, np.float64)), 0.5, Costs())
    assert truth[:CLEAN] == [truth[0]] * CLEAN
    assert truth[0].accuracy == pytest.approx(0, abs=1e-12)
    assert truth[CLEAN].accuracy < 0.005 < truth[CLEAN + 12].accuracy < truth[CLEAN + 29].accuracy
    assert truth[CLEAN + 29].cost > 0.2


def test_nobody_wins_back_what_an_outage_took() -> None:
    """V14 alone tells fraud here: without it the best answer is the fraud rate, which flags nobody."""
    truth = gains(find("S10"), CLEAN + 1, lambda x: bayes(REFERENCE, np.asarray(x, np.float64)), 0.5, Costs())
    assert truth[CLEAN].accuracy == pytest.approx(0, abs=0.005)
    arrival = list(arrivals(find("S10"), 3, lambda x: np.zeros(len(x)), CLEAN + 1))[-1]
    assert np.unique(arrival.oracle) == pytest.approx(np.log(0.15 / 0.85))
