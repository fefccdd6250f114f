"""The gauntlet's figures from rows made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.export import Run
from producer.scenarios import CLEAN
from selfheal.gauntlet.run import Counts, Row, Stream, counted
from selfheal.gauntlet.summary import figures
from selfheal.gauntlet.world import Gain, variant
from shared.bundle import Costs

TOLD = Run(rows=[], events=[], thresholds={}, active="v1")
NOTHING, MUCH = Gain(0.004, 0.029), Gain(0.1, 0.3)


def row(errors: tuple[int, int, int, int, int], *, version: str = "v1", verdict: str = "none",
        truth: Gain = MUCH) -> Row:  # fmt: skip
    """100 rows, 15 frauds; errors: false alarms of each way, each costs 1."""
    return Row(100, tuple(Counts(15, e, 0, e / 100, 8.0) for e in errors), version, verdict, "none", truth)


def stream(drifted: list[Row]) -> Stream:
    return Stream([row((6, 6, 6, 6, 15)) for _ in range(CLEAN)] + drifted, TOLD)


def test_recovery_first_heal_and_harm() -> None:
    before, after = (
        row((50, 40, 50, 10, 15)),
        row((50, 40, 14, 10, 15), version="v2", verdict="shift"),
    )
    one = stream([before] * 3 + [after] * 37)
    other = stream([before] * 40)
    found = figures(variant("S1"), [one, other])
    assert found.recovery_mean == pytest.approx(0.45)
    assert found.recovery_min == pytest.approx(0.0)
    assert (found.first_heal_median, found.first_heal_max) == (None, None)  # one of two never: no median
    assert figures(variant("S1"), [one]).first_heal_median == 3
    assert (found.healed_seeds, found.refused) == (1, 0.5)
    assert found.verdict_accuracy == pytest.approx(37 / 76)
    assert (found.worst_harm_accuracy, found.worst_harm_cost) == (0, 0)
    assert found.ways["healed"].accuracy == pytest.approx((0.86 + 0.5) / 2)
    assert found.ways["healed"].precision_at_k == pytest.approx(0.8)
    assert found.ways["healed"].recall_at_budget == pytest.approx(8 / 15)
    worse = row((10, 40, 30, 10, 15), version="v2")
    harmed = figures(variant("S1"), [one, stream([before] * 20 + [worse] * 20)])
    assert harmed.worst_harm_accuracy == pytest.approx(0.1)
    assert harmed.worst_harm_cost == pytest.approx(0.1)


def test_a_verdict_is_right_when_it_names_what_is_true_of_the_batch() -> None:
    small = [row((6, 6, 6, 6, 15), truth=NOTHING)] * 10
    big = [row((9, 9, 9, 6, 15), truth=MUCH, verdict="none")] * 10
    named = [row((9, 9, 9, 6, 15), truth=MUCH, verdict="shift")] * 20
    found = figures(variant("S2"), [stream(small + big + named)])
    assert found.verdict_accuracy == pytest.approx(28 / 38)  # none is right while nothing that matters has happened
    assert found.verdict_strict == pytest.approx(20 / 38)
    assert found.verdict_last == 1.0
    dear = Gain(0.0, 0.03)  # a gain in cost alone is worth a repair as well
    found = figures(variant("S2"), [stream([row((6, 6, 6, 6, 15), truth=dear)] * 40)])
    assert found.verdict_accuracy == 0.0


def test_between_two_phases_nothing_is_the_right_answer() -> None:
    on = [row((50, 50, 50, 6, 15), verdict="shift")] * 10
    off = [row((6, 6, 6, 6, 15), verdict="none", truth=NOTHING)] * 10
    assert figures(variant("S3"), [stream(on + off + on + off)]).verdict_accuracy == 1.0
    assert figures(variant("S3"), [stream(on * 4)]).verdict_accuracy == pytest.approx(18 / 38)


def test_counts_of_one_batch() -> None:
    p = np.array([0.9, 0.9, 0.4, 0.2, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0])
    fraud = np.array([1, 0, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    found = counted(p, fraud, 0.5, Costs())
    assert found[:3] == (1, 1, 3)
    assert found.cost == pytest.approx((1 * 1 + 1 * 5) / 10)  # above 1/6: .9 .9 .4 .2; the fraud at .1 is missed
    assert found.top_hits == 0.5  # one place, two that share the first: each is looked at half of the time
