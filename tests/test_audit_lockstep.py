"""Lockstep runs are audited exactly: the versions follow from the rows, and each batch names its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from audit_kit import Pipe, make_pipe

import audit


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return make_pipe(tmp_path, lockstep=True)


def test_green_as_made_with_heals_and_a_rollback(pipe: Pipe) -> None:
    report = audit.audit(pipe, pipe.bundle, complete=True)
    assert report.ok, report.lines()
    assert pipe.find("metrics", action="heal+rollback")


def by_the_version_before(pipe: Pipe) -> None:
    record = pipe.records["transactions"][4]
    assert record.headers["adapter"] == b"v3"
    pipe.records["transactions"][4] = record._replace(headers={"lockstep": b"1", "adapter": b"v1"})
    pipe.edit("predictions", 3, lambda b: b.update(adapter_version="v1"))


def a_rollback_that_never_came(pipe: Pipe) -> None:
    """Everything agrees that v5 stayed: no event, no control record, no row; only the scores ask for it."""
    pipe.drop("events", pipe.find("events", kind="rolled-back"))
    pipe.drop("control", pipe.find("control", version="v3", batch_id="b5"))
    i = pipe.find("metrics", action="heal+rollback")
    pipe.edit("metrics", i, lambda b: b.update(action="heal", rolled_back=False, next_version="v5"))


def a_rollback_to_another_than_the_best(pipe: Pipe) -> None:
    i = pipe.find("metrics", action="heal+rollback")
    pipe.edit("metrics", i, lambda b: b.update(next_version="v1"))
    pipe.edit("events", pipe.find("events", kind="rolled-back"), lambda b: b.update(to_version="v1"))
    pipe.edit("control", pipe.find("control", version="v3", batch_id="b5"), lambda b: b.update(version="v1"))


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        (by_the_version_before, "versions"),
        (a_rollback_that_never_came, "causes"),
        (a_rollback_to_another_than_the_best, "causes"),
    ],
)
def test_a_planted_fault_turns_its_rule_red(pipe: Pipe, fault: Callable[[Pipe], None], rule: str) -> None:
    fault(pipe)
    report = audit.audit(pipe, pipe.bundle)
    assert rule in report.broken(), report.lines()
    words = [why for _, why in report.findings[rule].first]
    assert any("names" in why or "played again" in why for why in words), words
