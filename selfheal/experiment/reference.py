"""`selfheal experiment reference`: the whole of it, from the seeds to the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console


def run_reference(
    kafka: Mapping[str, Any], console: Console, *, seed: int = 42, seeds: int = 1, stress: bool = False,
    drift_strength: float | None = None, heal_steps: int = 5, heal_lr: float = 0.003, fidi_threshold: float = 1.0,
    rollback_f1_drop: float | None = None, conflict_min: int = 5, out: Path | None = None, keep: bool = False,
) -> Path:  # fmt: skip
    """Run the published experiment for seeds seed, seed + 1, .. and return the run folder.

    kafka: librdkafka settings of a running broker. drift_strength None: 2.2, or 3.5 under stress;
    rollback_f1_drop None: 0.08, or 0.03 under stress. out None: runs/reference-<time>. keep: leave the topics of
    the runs on the broker. Raises OperatorError.
    """
    raise NotImplementedError
