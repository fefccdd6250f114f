"""The published experiment's figures, as published (docs/reference-experiment.md says what each one means)."""

from __future__ import annotations

from typing import NamedTuple

BATCHES, BATCH_ROWS, EVALUATION_ROWS = 25, 100, 1_000
DRIFT_STRENGTH, STRESS_DRIFT_STRENGTH = 2.2, 3.5
ROLLBACK_F1_DROP, STRESS_ROLLBACK_F1_DROP = 0.08, 0.03


class Figure(NamedTuple):
    """One published number: a share, a difference of shares, or a count (digits 0). path: where summary.json holds
    ours."""

    name: str
    path: tuple[str, ...]
    value: float
    digits: int = 3


FIGURES = (
    Figure("clean accuracy", ("stages", "clean", "accuracy"), 0.929),
    Figure("clean precision", ("stages", "clean", "precision"), 0.784),
    Figure("clean recall", ("stages", "clean", "recall"), 0.727),
    Figure("clean F1", ("stages", "clean", "f1"), 0.754),
    Figure("drift accuracy", ("stages", "drift", "accuracy"), 0.446),
    Figure("drift precision", ("stages", "drift", "precision"), 0.194),
    Figure("drift recall", ("stages", "drift", "recall"), 0.853),
    Figure("drift F1", ("stages", "drift", "f1"), 0.316),
    Figure("healed accuracy", ("stages", "healed_as_published", "accuracy"), 0.724),
    Figure("healed precision", ("stages", "healed_as_published", "precision"), 0.224),
    Figure("healed recall", ("stages", "healed_as_published", "recall"), 0.340),
    Figure("healed F1", ("stages", "healed_as_published", "f1"), 0.270),
    Figure("recovery", ("as_published", "recovery"), 0.278),
    Figure("mean lift", ("as_published", "lift", "mean"), 0.223),
    Figure("smallest lift", ("as_published", "lift", "min"), 0.05),
    Figure("largest lift", ("as_published", "lift", "max"), 0.36),
    Figure("batches with a positive lift", ("as_published", "lift", "positive_batches"), 25, 0),
    Figure("snapshots", ("as_published", "snapshots"), 51, 0),
    Figure("rollbacks", ("as_published", "rollbacks"), 0, 0),
)

# TP, TN, FP, FN on the 1,000 drifted rows; the clean stage's were not published.
COUNTS = {"drift": (128, 318, 532, 22), "healed": (51, 673, 177, 99)}
STRESS_RESTORED = "v21 of batch 10, F1 0.408"
