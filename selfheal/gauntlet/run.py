"""One seed of one variant: every batch through the pipeline, and what each way of answering came to on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.export import Run
from producer.labels import LabelQueue
from producer.scenarios import CLEAN
from selfheal.gauntlet.memory import Kit, Pipeline, transaction_ids
from selfheal.gauntlet.world import Arrival, Gain, Variant, arrivals, gains
from shared.alignment import Floats
from shared.bundle import Costs
from shared.records import FIRST_VERSION
from shared.scores import cost_threshold

# frozen: no adapter ever. published: policy reference, its labels withheld. oracle: the best that can be known after
# the fact. all_negative: nobody is flagged.
WAYS = ("frozen", "published", "healed", "oracle", "all_negative")
TOP = 0.1  # share of a batch that an alert budget of 100 per 1,000 lets people look at


class Counts(NamedTuple):
    """One way on one batch. At the flag threshold: frauds flagged, others flagged, frauds not flagged. cost: mean of a
    transaction at the cost threshold, in the operator's unit. top_hits: frauds among the TOP share with the highest
    probabilities."""

    hits: int
    false_alarms: int
    missed: int
    cost: float
    top_hits: float


class Row(NamedTuple):
    """Of one batch, as it was served. counts: one for each of WAYS. version: in force. verdict, action: of the
    monitor, after the batch was seen. truth: what the oracle gains on the batch's law."""

    rows: int
    counts: tuple[Counts, ...]
    version: str
    verdict: str
    action: str
    truth: Gain

    @property
    def active(self) -> bool:
        """An adapter was in force."""
        return self.version != FIRST_VERSION


class Stream(msgspec.Struct, frozen=True):
    """One seed of one variant. told: what the topics would tell."""

    rows: list[Row]
    told: Run


def play(variant: Variant, seed: int, kit: Kit) -> Stream:
    """The stream of one seed, batch by batch, under policy guarded and beside it as published without labels."""
    batches, manifest = CLEAN + variant.drifted, kit.bundle.manifest
    logit = kit.knowledge.profile.logit
    truth = gains(variant.scene, batches, logit, manifest.thresholds.flag, manifest.costs)
    guarded, published = Pipeline(kit, kit.guarded), Pipeline(kit, kit.published)
    queue, rows = LabelQueue(variant.labels), []
    for k, arrival in enumerate(arrivals(variant.scene, seed, logit, batches), start=1):
        batch_id = f"s{seed}-{k:06d}"
        other = published.batch(k, batch_id, arrival.batch)
        served = guarded.batch(k, batch_id, arrival.batch)
        guarded.labels(queue.add(batch_id, transaction_ids(batch_id, len(arrival.y)), arrival.y))
        answers = (served.shadow, other.probability, served.probability)
        rows.append(
            Row(
                len(arrival.y), _counted(arrival, answers, manifest.thresholds.flag, manifest.costs), served.version,
                served.verdict, served.action, truth[k - 1],
            )
        )  # fmt: skip
    return Stream(rows, guarded.run())


def _counted(arrival: Arrival, answers: Sequence[Floats], flag: float, costs: Costs) -> tuple[Counts, ...]:
    """answers: of the first three WAYS."""
    fraud = arrival.y == 1
    oracle = 1 / (1 + np.exp(-np.clip(arrival.oracle, -700, 700)))
    return tuple(counted(p, fraud, flag, costs) for p in (*answers, oracle, np.zeros(len(fraud))))


def counted(probability: Floats, fraud: npt.NDArray[np.bool_], flag: float, costs: Costs) -> Counts:
    """probability, fraud (n,). Of equal probabilities at the edge of the top, each counts in part: whoever looks at
    them has to choose blindly."""
    flags, dear = probability > flag, probability > cost_threshold(costs)
    hits, alarms = int((flags & fraud).sum()), int((flags & ~fraud).sum())
    cost = float((costs.missed_fraud * (fraud & ~dear) + costs.false_alarm * (~fraud & dear)).mean())
    places = max(round(TOP * len(fraud)), 1)
    edge = np.sort(probability)[-places]
    above, at = probability > edge, probability == edge
    share = (places - above.sum()) / at.sum()
    top = float((above & fraud).sum() + share * (at & fraud).sum())
    return Counts(hits, alarms, int(fraud.sum()) - hits, cost, top)
