"""What arrives in a scenario, batch by batch, and what the best informed model would answer.

A variant is a scenario's name with, behind it, t3 (heavy tails), L (labels come: 20 batches late, and a 2% audit
sample at once) or both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from producer.batch import Batch
from producer.drift import Adapt, Mechanism, Mimic, Outage, Shift
from producer.generator import Generator, Labels, Rows
from producer.labels import LabelPlan
from producer.scenarios import CLEAN, HEAVY, SCENARIOS, Scenario, find
from producer.sources import Drawn, Synthetic
from shared.alignment import Floats, log_odds
from shared.bundle import Costs
from shared.errors import OperatorError
from shared.profile import Logit
from shared.scores import cost_threshold

BATCH_ROWS, DRIFTED, DRIFTED_LABELLED = 100, 40, 60
LABELLED = "L"
LABEL_DELAY, AUDIT_SHARE = 20, 0.02
TRUTH_ROWS = 20_000  # behind what an oracle is said to gain
NAMES = tuple(n for n in SCENARIOS if n != "reference")
# What the gauntlet runs unless told otherwise: every drift, those that only labels can heal with labels too, and
# heavy tails where they were known to be hard.
ALL = (*NAMES, "S9L", "S10L", "S12L", "S14L", "S0t3", "S4t3", "S7t3", "S8t3")


@dataclass(frozen=True)
class Variant:
    """labelled: labels come. drifted: batches after the clean ones."""

    name: str
    scene: Scenario
    labelled: bool
    drifted: int

    @property
    def plain(self) -> str:
        """The scenario's name."""
        return self.scene.name.removesuffix(HEAVY)

    @property
    def labels(self) -> LabelPlan:
        if not self.labelled:
            return LabelPlan(delay=None)
        return LabelPlan(delay=LABEL_DELAY, audit_share=AUDIT_SHARE)


class Arrival(NamedTuple):
    """batch: as fed. x (n, d): its rows, float32 as the scorer reads them; y (n,); oracle (n,) logits, known after the
    fact."""

    batch: Batch
    x: npt.NDArray[np.float32]
    y: Labels
    oracle: Floats


class Gain(NamedTuple):
    """What the oracle gains over the frozen network on a batch's law: accuracy, and cost saved per transaction."""

    accuracy: float
    cost: float


def variant(name: str, drifted: int | None = None) -> Variant:
    """By name: S1, S4t3, S9L. drifted: other than 40 batches (60 with labels). Raises OperatorError."""
    labelled = name.endswith(LABELLED)
    scene = find(name.removesuffix(LABELLED))
    if scene.name == "reference":
        raise OperatorError(f"scenario reference: see `selfheal experiment reference`; here are {', '.join(ALL)}")
    return Variant(name, scene, labelled, drifted or (DRIFTED_LABELLED if labelled else DRIFTED))


def arrivals(scene: Scenario, seed: int, logit: Logit, batches: int = CLEAN + DRIFTED) -> Iterator[Arrival]:
    """The stream of one seed, the rows that `selfheal produce --scenario NAME --seed SEED` sends. logit: of the frozen
    network, behind the oracle of invertible drift."""
    source = Synthetic(seed, BATCH_ROWS, scene.steps, scene.generator, scene.exact)
    for k in range(1, batches + 1):
        drawn = source.drawn(k)
        x = np.ascontiguousarray(drawn.batch.rows, np.float32)
        yield Arrival(drawn.batch, x, drawn.labels, oracle(scene, drawn, k, logit))


def oracle(scene: Scenario, drawn: Drawn, k: int, logit: Logit) -> Floats:
    """Logits (n,). Drift of all rows alike: the network on the rows as they were. Drift of one class: Bayes' rule; so
    too where a feature is gone, without it."""
    changed = [s for s in scene.steps if s.profile.weight(k)]
    law = drawn.law
    if any(isinstance(s, Adapt | Mechanism | Mimic) for s in changed):
        return bayes(law, drawn.rows)
    if gone := {law.features.index(s.feature) for s in changed if isinstance(s, Outage)}:
        return bayes(replace(law, informative=tuple(f for f in law.informative if f.column not in gone)), drawn.rows)
    if one := next((s for s in changed if isinstance(s, Shift) and s.only == "normal"), None):
        column = law.features.index(one.feature)
        moved = tuple(
            replace(f, normal_mean=f.normal_mean + one.amount) if f.column == column else f for f in law.informative
        )
        return bayes(replace(law, informative=moved), np.asarray(drawn.batch.rows, np.float64))
    rate = log_odds(law.fraud_rate) - log_odds(scene.generator.fraud_rate)
    return logit(drawn.rows.astype(np.float32)) + rate


def bayes(law: Generator, x: Rows) -> Floats:
    """(n, d) to (n,): the logit of p(fraud | x) under normal laws."""
    out = np.full(len(x), log_odds(law.fraud_rate))
    for f in law.informative:
        fraud = (x[:, f.column] - f.fraud_mean) / f.fraud_deviation
        normal = (x[:, f.column] - f.normal_mean) / f.normal_deviation
        out += (normal**2 - fraud**2) / 2 - math.log(f.fraud_deviation / f.normal_deviation)
    return out


def gains(scene: Scenario, batches: int, logit: Logit, flag: float, costs: Costs) -> list[Gain]:
    """Of batches 1, 2, ..: on 20,000 rows of each batch's own law, the same random numbers for all."""
    known: dict[tuple[float, ...], Gain] = {}
    out = []
    for k in range(1, batches + 1):
        weights = tuple(s.profile.weight(k) for s in scene.steps)
        if weights not in known:
            known[weights] = _gain(scene, k, logit, flag, costs)
        out.append(known[weights])
    return out


def _gain(scene: Scenario, k: int, logit: Logit, flag: float, costs: Costs) -> Gain:
    parts = []
    for part in range(TRUTH_ROWS // 1_000):  # a batch of the source has 1,000 rows at most
        drawn = Synthetic(part, 1_000, scene.steps, scene.generator).drawn(k)
        x = drawn.batch.rows.astype(np.float32)
        parts.append((logit(x), oracle(scene, drawn, k, logit), drawn.labels == 1))
    frozen, best, fraud = (np.concatenate(p) for p in zip(*parts, strict=True))
    cut, dear = log_odds(flag), log_odds(cost_threshold(costs))
    accuracy = [float(((s > cut) == fraud).mean()) for s in (frozen, best)]
    cost = [_cost(s > dear, fraud, costs) for s in (frozen, best)]
    return Gain(accuracy[1] - accuracy[0], cost[0] - cost[1])


def _cost(flags: npt.NDArray[np.bool_], fraud: npt.NDArray[np.bool_], costs: Costs) -> float:
    return float((costs.missed_fraud * (fraud & ~flags) + costs.false_alarm * (~fraud & flags)).mean())
