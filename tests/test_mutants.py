"""Every deliberate fault turns the audit red, on the rule that is there for it; each scenario without it is green.

`pytest tests/test_mutants.py -rP` prints the table of docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mutant_scenarios as on
import pytest
from mutant_scenarios import LeftOpen, Scenario
from mutant_world import World
from mutants import MUTANTS, OPEN, Mutant

import audit
from selfheal.chaos.watch import Watch
from shared.bundle import Bundle

pytestmark = pytest.mark.broker
SOUND: dict[str, Scenario] = {
    "plain": on.plain, "healing": on.healing, "scorer killed": on.killed("scorer"),
    "monitor killed": on.killed("monitor"), "killed, left open": on.killed("scorer", LeftOpen), "aborted": on.aborted,
    "stopped": on.stopped, "forged": on.forged, "unasked": on.unasked, "undecided control": on.undecided_control,
    "undecided labels": on.undecided_labels,
}  # fmt: skip


@pytest.fixture
def world(
    kafka: dict[str, str], prefix: str, bundle: Bundle, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    with Watch(kafka, prefix) as watch:
        world = World(kafka, prefix, bundle, bundle_dir, monkeypatch, watch)
        yield world
        world.stop()


@pytest.mark.parametrize("scenario", SOUND.values(), ids=SOUND)
def test_without_a_fault_it_is_green(world: World, scenario: Scenario) -> None:
    scenario(world, lambda _: None)
    assert world.settled()
    report = world.audited()
    assert report.ok, "\n".join(report.lines())
    assert report.findings["answers"].checked >= 6


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_is_red(world: World, mutant: Mutant) -> None:
    mutant.scenario(world, mutant.apply)
    if mutant.rule == OPEN:
        with pytest.raises(audit.CannotAudit, match="open transaction") as caught:
            world.audited(budget_s=4.0)
        print(f"| {mutant.name} | {caught.value} |")
        return
    report = world.audited()
    assert mutant.rule in report.broken(), "\n".join(report.lines())
    _where, why = report.findings[mutant.rule].first[0]
    print(f"| {mutant.name} | `{mutant.rule}`: {why.replace(world.prefix, 'P')} |")
