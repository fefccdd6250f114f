"""The published threshold_config.json, complete, partial and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.thresholds import Thresholds, read_thresholds
from shared.errors import OperatorError


def written(folder: Path, values: Any) -> Path:
    path = folder / "threshold_config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_without_a_file_the_published_values_are_in_force() -> None:
    assert read_thresholds(None).values() == {
        "rollback_f1_drop": 0.08, "rollback_acc_drop": 0.10, "health_window": 5, "fidi_threshold": 1.0,
        "conflict_min": 5, "heal_steps": 5, "heal_lr": 0.003,
    }  # fmt: skip


def test_missing_keys_keep_their_defaults(tmp_path: Path) -> None:
    found = read_thresholds(
        written(tmp_path, {"rollback_f1_drop": 0.03, "rollback_acc_drop": 0.10, "health_window": 7})
    )
    assert found == Thresholds(rollback_f1_drop=0.03, health_window=7)


def test_what_the_monitor_publishes_can_be_read_back(tmp_path: Path) -> None:
    assert read_thresholds(written(tmp_path, Thresholds().values())) == Thresholds()


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"rollback_f1drop": 0.1, "health_window": 2, "heal_lr": "fast", "conflict_min": 2.5, "fidi_threshold": 0},
    )
    with pytest.raises(OperatorError) as raised:
        read_thresholds(path)
    text = str(raised.value)
    assert str(path) in text
    for part in ("rollback_f1drop: no such threshold", "health_window", "heal_lr", "conflict_min", "fidi_threshold"):
        assert part in text
    assert "known: rollback_f1_drop" in text


@pytest.mark.parametrize("content", ["{", "[1]", '{"fidi_threshold": NaN}'])
def test_what_is_no_json_object_of_numbers_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(OperatorError, match="cannot be used"):
        read_thresholds(written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"nowhere\.json: No such file"):
        read_thresholds(tmp_path / "nowhere.json")
