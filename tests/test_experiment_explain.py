"""selfheal/experiment/explain.py: one rule, and what nothing reaches stays open."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal.experiment.explain import Compared, Explained, explain, idle_rollbacks, rule_distance
from selfheal.experiment.published import FIGURES
from selfheal.experiment.report_honest import figures

Path = tuple[str, ...]


def put(numbers: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        numbers = numbers.setdefault(key, {})
    numbers[path[-1]] = value


def explained(name: str, shift: float, far: int, script: int = 0) -> Compared:
    """All intervals hold the published figure but that of `name`, which is moved up by shift. Of 100 further seeds
    `far` have its published value, the others our median; trained as the script does, `script` have it."""
    summary: dict[str, Any] = {}
    more: list[dict[str, Any]] = [{"script": {}} for _ in range(100)]
    for figure in FIGURES:
        median = figure.value + (shift if figure.name == name else 0)
        put(summary, figure.path, {"median": median, "p05": median - 0.001, "p95": median + 0.001})
        for i, each in enumerate(more):
            put(each, figure.path, figure.value if figure.name == name and i < far else median)
            each["script"][figure.name] = figure.value if i < script else figure.value + 5 * shift
    return explain(summary, more, 2.2)


def one(name: str, shift: float, far: int, script: int = 0) -> Explained:
    found = {e.figure.name: e for e in explained(name, shift, far, script).figures}
    assert all(e.verdict == "inside" for other, e in found.items() if other != name)
    return found[name]


@pytest.mark.parametrize(("far", "verdict"), [(5, "narrow"), (4, "rare"), (1, "rare"), (0, "open")])
@pytest.mark.parametrize("shift", [0.05, -0.05])
def test_the_same_rule_on_either_side(far: int, verdict: str, shift: float) -> None:
    e = one("clean accuracy", shift, far)
    assert e.verdict == verdict
    assert e.text.startswith(f"{far} of 100 further seeds lie as far out; trained as the script does: [")


def test_inside_needs_no_counts() -> None:
    assert all(e.verdict == "inside" and not e.text for e in explained("clean accuracy", 0.0, 0).figures)


@pytest.mark.parametrize(("script", "verdict"), [(50, "explained"), (6, "explained"), (3, "open")])
@pytest.mark.parametrize("shift", [0.05, -0.05])
def test_a_way_of_training_that_gives_the_figure_explains_it(script: int, verdict: str, shift: float) -> None:
    assert one("clean accuracy", shift, 0, script).verdict == verdict


def test_both_ends_of_the_lift_are_judged_together() -> None:
    """Each end alone is reached by every further seed of ours here."""
    assert one("largest lift", 0.1, 100, 4).verdict == "narrow"
    assert one("largest lift", 0.1, 0, 4).verdict == "open"
    found = one("smallest lift", -0.1, 0, 5)
    assert found.verdict == "explained"
    assert "5 of 100 further seeds keep within the range at both ends" in found.text


def test_the_report_does_not_hide_what_is_open() -> None:
    text = "\n".join(figures(explained("mean lift", 0.1, 0)))
    assert "18 inside, 0 explained, 0 narrow, 0 rare, 1 open" in text
    assert "| mean lift | 0.223 | 0.323 [0.322, 0.324] | **open** | 0 of 100 further seeds lie as far out; " in text


@pytest.mark.parametrize(("strange", "usual"), [(3, True), (2, False)])
def test_the_whole_run_is_judged_beside_its_figures(strange: int, usual: bool) -> None:
    """Ten published figures are far from nearly all of 100 seeds. As many are strange on that side, and on the other:
    six of 100 are enough."""
    far = {figure.name for figure in FIGURES[:10]}
    summary: dict[str, Any] = {}
    more: list[dict[str, Any]] = [{"script": {}} for _ in range(100)]
    for figure in FIGURES:
        put(summary, figure.path, {"median": figure.value, "p05": figure.value, "p95": figure.value})
        for i, each in enumerate(more):
            put(each, figure.path, figure.value)
            each["script"][figure.name] = figure.value + (figure.name in far) * ((i >= strange) + (i >= 100 - strange))
    compared = explain(summary, more, 2.2)
    assert (compared.outside, compared.as_many) == (10, 2 * strange)
    assert compared.usual is usual
    text = "\n".join(figures(compared))
    assert "10 of 19 published figures lie outside" in text
    assert ("is not one that this process gives" in text) is not usual


def test_the_published_shadow_is_near_a_rule_on_v14_and_other_counts_are_not() -> None:
    threshold, p = rule_distance(128, 318, 2.2)
    assert threshold == pytest.approx(-1.845, abs=0.01)
    assert p == pytest.approx(0.049, abs=0.002)
    assert rule_distance(128, 600, 2.2)[1] < 1e-6


def test_the_rollback_rule_fires_on_nothing_in_small_batches() -> None:
    """Measured before: 48% of runs at 100 rows a batch, 10% at 500, none at 2,000."""
    shares = [idle_rollbacks(0.78, 0.03, rows=rows) for rows in (100, 500, 2_000)]
    assert shares[0] > 0.3
    assert 0.01 < shares[1] < 0.2
    assert shares[2] == 0.0
