"""From which probability a transaction is flagged, and what that is worth on rows nobody trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.alignment import Floats
from shared.bundle import Costs, Scores
from shared.errors import OperatorError
from shared.scores import cost_threshold, scores

Labels = npt.NDArray[np.int8]


def flag_threshold(costs: Costs, probability: Floats, alerts_per_1000: float | None) -> float:
    """The stricter of two. Of the costs: with a calibrated p, flagging costs (1 - p) c_fa and not flagging p c_miss,
    so flag where p > c_fa / (c_fa + c_miss) (Elkan 2001, equation 2). Of the budget: the largest p that leaves at
    most alerts_per_1000 of 1,000 rows above it. probability (n,): of rows that were not trained on.

    Raises OperatorError where the budget is less than one alert in so few rows.
    """
    by_cost = cost_threshold(costs)
    if alerts_per_1000 is None:
        return by_cost
    rows = len(probability)
    alerts = int(rows * alerts_per_1000 / 1_000)
    if alerts < 1:
        raise OperatorError(
            f"--alerts-per-1000 {alerts_per_1000:g}: less than one alert in the {rows} rows it is set on; give at "
            f"least {1_000 / rows:.2g}, or a longer file"
        )
    ranked = np.sort(np.asarray(probability, np.float32).astype(np.float64))[::-1]
    return max(by_cost, float(ranked[alerts]) if alerts < rows else 0.0)


class Judged(NamedTuple):
    """On rows in time order that nobody trained on. scores: at the flag threshold. cost, cost_of_none: per
    transaction, and of flagging nobody. flagged: share. alerts: how many rows are looked at where only the riskiest
    are; precision_at, recall_at: among those."""

    rows: int
    frauds: int
    scores: Scores
    flagged: float
    cost: float
    cost_of_none: float
    alerts: int
    precision_at: float
    recall_at: float


def judge(
    probability: Floats, labels: Labels, missed: Floats, *, flag: float, costs: Costs, alerts_per_1000: float | None
) -> Judged:
    """probability, labels (n,) of 0/1. missed (n,): what each row costs if it is a fraud nobody flags. The riskiest
    are alerts_per_1000 of 1,000, or as many as there are frauds."""
    p = np.asarray(probability, np.float32).astype(np.float64)
    fraud, above = labels == 1, p > flag
    rows, frauds = len(labels), int(fraud.sum())
    alerts = frauds if alerts_per_1000 is None else max(int(rows * alerts_per_1000 / 1_000), 1)
    found = int(fraud[np.argsort(-p, kind="stable")[:alerts]].sum())
    lost = float(missed[fraud & ~above].sum()) + costs.false_alarm * int((above & ~fraud).sum())
    return Judged(
        rows=rows, frauds=frauds, scores=scores(probability, labels, flag), flagged=float(above.mean()),
        cost=lost / rows, cost_of_none=float(missed[fraud].sum()) / rows,
        alerts=alerts, precision_at=found / alerts, recall_at=found / max(frauds, 1),
    )  # fmt: skip
