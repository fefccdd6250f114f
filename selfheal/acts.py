"""The demo's three drifts, and what the best informed model could make of every batch. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from producer.drift import Outage, RowStep, Step
from producer.drift_text import parse
from producer.generator import REFERENCE, Labels, Rows
from producer.sources import Synthetic
from selfheal.gauntlet.world import bayes
from shared.alignment import log_odds
from shared.bundle import Costs
from shared.scores import expected_cost, scores

FLAG = 0.5  # accuracy, precision, recall and F1 are of flagging above it, as the trained bundle's


class Act(NamedTuple):
    """One drift. first, last: its batches. steps: as `selfheal produce --drift` takes them, without their times. told:
    what happened out there, for somebody who knows nothing of the model."""

    title: str
    first: int
    last: int
    steps: tuple[str, ...]
    told: str

    @property
    def drifts(self) -> list[str]:
        return [f"{step}:from={self.first},until={self.last}" for step in self.steps]


ACTS = (
    Act(
        "other units", 9, 20, ("unit:V14:10",), "A feed sends the field V14 in another unit: ten times the number."
    ),
    Act("dark field", 26, 33, ("outage:V14:0",), "The source of V14 is down: the field is 0 for everybody."),
    Act(
        "false friends", 45, 62, ("prior:0.06", "mimic:0.4"),
        "A campaign brings many honest customers, and four in ten of them look like fraud. From the rows alone that is "
        "the same as more fraud.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What the demo streams. rows: transactions in a batch. label_delay: batches until the labels come."""

    batches: int = 62
    acts: tuple[Act, ...] = ACTS
    rows: int = 300
    seed: int = 42
    label_delay: int = 2

    def act(self, batch: int) -> int | None:
        """Index of the newest act that has begun by this batch, None before the first."""
        begun = [i for i, act in enumerate(self.acts) if act.first <= batch]
        return begun[-1] if begun else None

    def until(self, act: int) -> int:
        """The last batch that belongs to an act: the calm after it is its own."""
        return self.acts[act + 1].first - 1 if act + 1 < len(self.acts) else self.batches

    @property
    def steps(self) -> tuple[Step, ...]:
        return parse(text for act in self.acts for text in act.drifts)


class Truth(NamedTuple):
    """Of one batch, known after the fact. labels (n,) of 0/1. oracle (n,): p(fraud) by Bayes' rule, told the law of the
    batch and what the drift did to the rows."""

    labels: Labels
    oracle: npt.NDArray[np.float64]

    def best(self, costs: Costs) -> tuple[float, float]:
        """(accuracy, cost) of the oracle."""
        return scores(self.oracle, self.labels, FLAG).accuracy, expected_cost(self.oracle, self.labels, costs)

    def nobody(self, costs: Costs) -> tuple[float, float]:
        """(accuracy, cost) of flagging nobody."""
        return float((self.labels == 0).mean()), costs.missed_fraud * float((self.labels == 1).mean())


def truth(plan: Plan) -> dict[int, Truth]:
    """Of every batch, by its number: the producer's rows come from the seed alone."""
    steps = plan.steps
    source = Synthetic(plan.seed, plan.rows, tuple(s for s in steps if not isinstance(s, RowStep)))
    found = {}
    for k in range(1, plan.batches + 1):
        batch = source.batch(k)
        if batch.labels is None:
            raise ValueError("a synthetic batch has labels")
        found[k] = Truth(batch.labels, _oracle(steps, k, batch.rows))
    return found


def _oracle(steps: Sequence[Step], k: int, rows: Rows) -> npt.NDArray[np.float64]:
    """(n, d) rows before any row step to (n,). A dark field tells nothing; every other row step can be undone."""
    law = REFERENCE
    dark = set()
    for step in steps:
        weight = step.profile.weight(k)
        if isinstance(step, Outage) and weight:
            dark.add(law.features.index(step.feature))
        elif not isinstance(step, RowStep) and weight:
            law = step.change(law, weight)
    seen = replace(law, informative=tuple(f for f in law.informative if f.column not in dark))
    rate, mimics = log_odds(law.fraud_rate), law.mimics
    ratio = bayes(seen, rows) - rate  # ln of the two densities' ratio
    # Normals are (1 - mimics) f0 + mimics f1; divided by f1.
    with np.errstate(divide="ignore"):
        odds = rate - np.logaddexp(np.log1p(-mimics) - ratio, np.log(mimics))
    return np.asarray(1 / (1 + np.exp(-odds)))
