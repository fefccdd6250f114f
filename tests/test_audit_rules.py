"""Each rule of the auditor on topics made by hand: green as they are, red by its name for every planted fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import planted_answers
import planted_decisions
import pytest
from audit_kit import Pipe, make_pipe

import audit
from audit.report import RULES

PLANTS = {**planted_answers.PLANTS, **planted_decisions.PLANTS}


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return make_pipe(tmp_path)


def audited(pipe: Pipe, **options: Any) -> audit.Report:
    return audit.audit(pipe, pipe.bundle, **options)


def test_green_as_made_and_every_rule_has_checked_something(pipe: Pipe) -> None:
    report = audited(pipe, complete=True)
    assert report.ok, report.lines()
    assert {rule for rule, f in report.findings.items() if f.checked} == set(RULES)
    assert report.counts == {"rows computed again": 120}
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


@pytest.mark.parametrize(
    ("fault", "lost", "doubled"),
    [("a_prediction_lost", 1, 0), ("a_dead_letter_twice", 0, 1), ("a_prediction_and_a_dead_letter", 0, 1)],
)
def test_what_is_lost_and_what_is_doubled_is_counted(pipe: Pipe, fault: str, lost: int, doubled: int) -> None:
    before = audited(pipe)
    assert (before.lost, before.doubled) == (0, 0)
    assert before.inputs == len(pipe.records["transactions"])
    PLANTS[fault][1](pipe)
    after = audited(pipe)
    assert after.as_dict()["inputs"] == {"read": before.inputs, "lost": lost, "doubled": doubled}


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _ in PLANTS.values()} == set(RULES)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_turns_its_rule_red(pipe: Pipe, name: str) -> None:
    rule, fault = PLANTS[name]
    fault(pipe)
    report = audited(pipe)
    assert rule in report.broken(), report.lines()
    where, why = report.findings[rule].first[0]
    assert where.startswith("shop.")
    assert why
