"""What a set of probabilities is worth once the labels are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.bundle import Costs, Manifest, Scores


def scores(probability: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5) -> Scores:
    """Accuracy, precision, recall and F1 of flagging above the threshold; 0 where a ratio is undefined.

    probability (n,) in 0..1, compared as float64 of its float32; labels (n,) of 0 and 1; n >= 1.
    """
    hits, false_alarms, missed, rows = _counts(probability, labels, threshold)
    return Scores(
        accuracy=(rows - false_alarms - missed) / rows,
        precision=hits / max(hits + false_alarms, 1),
        recall=hits / max(hits + missed, 1),
        f1=2 * hits / max(2 * hits + false_alarms + missed, 1),
    )


def cost_threshold(costs: Costs) -> float:
    """The probability above which flagging is the cheaper answer of a calibrated model: 1/6 at 1 and 5."""
    return costs.false_alarm / (costs.false_alarm + costs.missed_fraud)


def cut_in_force(manifest: Manifest) -> float:
    """The probability above which a bundle's decisions are made, as far as costs go: the costs' own threshold, or the
    flag threshold where an alert budget made that the stricter one."""
    by_cost = cost_threshold(manifest.costs)
    return by_cost if manifest.alerts_per_1000 is None else max(by_cost, manifest.thresholds.flag)


def expected_cost(probability: npt.ArrayLike, labels: npt.ArrayLike, costs: Costs, cut: float | None = None) -> float:
    """Mean cost of a transaction, in the operator's unit, when flagged above cut (None: cost_threshold). Shapes as
    scores."""
    _, false_alarms, missed, rows = _counts(probability, labels, cost_threshold(costs) if cut is None else cut)
    return (false_alarms * costs.false_alarm + missed * costs.missed_fraud) / rows


def at_budget(probability: npt.ArrayLike, labels: npt.ArrayLike, alerts_per_1000: float) -> tuple[float, float]:
    """(precision at k, recall at budget): of the k likeliest rows, which a team with so many alerts can look at, the
    share that is fraud; of the frauds, the share among these k. k = rows * alerts_per_1000 / 1000, down, at least 1; of
    equal probabilities the earlier row counts first. recall is 0 without a fraud. Shapes as scores."""
    p, fraud = np.asarray(probability, np.float64), np.asarray(labels) == 1
    k = max(int(len(p) * alerts_per_1000 / 1_000), 1)
    found = int(fraud[np.argsort(-p, kind="stable")[:k]].sum())
    return found / k, found / max(int(fraud.sum()), 1)


def _counts(probability: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> tuple[int, int, int, int]:
    """Frauds flagged, others flagged, frauds not flagged, rows."""
    # float64, or NumPy would round the threshold to float32 and a tie would fall to the other side
    flag = np.asarray(probability, np.float32).astype(np.float64) > threshold
    fraud = np.asarray(labels) == 1
    hits = int(np.count_nonzero(flag & fraud))
    return hits, int(np.count_nonzero(flag)) - hits, int(np.count_nonzero(fraud)) - hits, len(fraud)
