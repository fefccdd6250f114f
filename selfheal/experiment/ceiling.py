"""What the published drift allows any model, computed from the generator's own densities.

Only V14 tells the classes apart: normals follow N(-strength, 1), fraud N(-2.5, 0.8), a share of 0.15 is fraud. The
best rule of every kind (F1, accuracy, expected cost) is a threshold on p(fraud | V14), so one sweep over that
posterior on a fine grid finds them all.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from producer.generator import REFERENCE, Informative
from shared.bundle import Costs
from shared.scores import cost_threshold

Reals = npt.NDArray[np.float64]
GRID = np.linspace(-14.0, 10.0, 240_001)  # 1e-4 apart; beyond it lies less than 1e-12 of either class


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """Expectations over the population. f1: best F1 of any classifier. auc: of the true posterior. accuracy: best of
    any. accuracy_all_negative, cost_all_negative: of flagging nobody. cost: least expected cost per transaction
    (unit: one false alarm), decided at the true p > cost_threshold. cost_all_positive: of flagging everybody."""

    f1: float
    auc: float
    accuracy: float
    accuracy_all_negative: float
    cost: float
    cost_all_negative: float
    cost_all_positive: float
    cost_threshold: float


def drifted_law(strength: float) -> Informative:
    """V14 in the drifted world: the normals' mean is -strength, all else as in the reference generator."""
    (law,) = REFERENCE.informative
    return Informative(law.column, -strength, law.normal_deviation, law.fraud_mean, law.fraud_deviation)


def _density(x: Reals, mean: float, deviation: float) -> Reals:
    z = (x - mean) / deviation
    return np.asarray(np.exp(-0.5 * z * z) / (deviation * np.sqrt(2 * np.pi)))


def posterior(x: Reals, strength: float, rate: float = REFERENCE.fraud_rate) -> Reals:
    """The true p(fraud | V14 = x), any shape: the oracle."""
    law = drifted_law(strength)
    fraud = rate * _density(x, law.fraud_mean, law.fraud_deviation)
    normal = (1 - rate) * _density(x, law.normal_mean, law.normal_deviation)
    return np.asarray(fraud / (fraud + normal))


def ceiling(strength: float, costs: Costs | None = None, rate: float = REFERENCE.fraud_rate) -> Ceiling:
    """The best that any classifier can do on rows whose normals have moved by -strength (0: no drift)."""
    costs = costs or Costs()
    law, step = drifted_law(strength), GRID[1] - GRID[0]
    order = np.argsort(-posterior(GRID, strength, rate), kind="stable")  # most suspicious first
    recall = np.cumsum(_density(GRID, law.fraud_mean, law.fraud_deviation)[order]) * step
    false_rate = np.cumsum(_density(GRID, law.normal_mean, law.normal_deviation)[order]) * step
    flagged = rate * recall + (1 - rate) * false_rate
    cost = costs.false_alarm * (1 - rate) * false_rate + costs.missed_fraud * rate * (1 - recall)
    return Ceiling(
        f1=float((2 * rate * recall / (flagged + rate)).max()),
        auc=float(np.trapezoid(recall, false_rate)),
        accuracy=float(max((rate * recall + (1 - rate) * (1 - false_rate)).max(), 1 - rate)),
        accuracy_all_negative=1 - rate,
        cost=float(min(cost.min(), costs.missed_fraud * rate)),
        cost_all_negative=costs.missed_fraud * rate,
        cost_all_positive=costs.false_alarm * (1 - rate),
        cost_threshold=cost_threshold(costs),
    )
