"""One seed of one scenario: the guard asks, the healer answers at once, every batch is scored as it would be served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from healer.diagnose import Diagnosis, diagnose
from healer.knowledge import Knowledge
from monitor.detect import sums_of
from monitor.guard import Activate, Answer, Ask, Guard, begin, on_answer, on_block
from producer.scenarios import CLEAN, Scenario
from selfheal.gauntlet.world import DRIFTED, Arrival, arrivals
from shared.alignment import Floats, identity, log_odds
from shared.profile import Profile
from shared.scores import cost_threshold


class Row(NamedTuple):
    """Of one batch, as it was served. accuracy, cost: of frozen, healed, oracle. active: a heal was in force.
    verdict, action: after the batch was seen."""

    accuracy: tuple[float, float, float]
    cost: tuple[float, float, float]
    active: bool
    verdict: str
    action: str


class Pipeline:
    """The guard and the healer of one bundle, in one process. h: the detection threshold."""

    def __init__(self, knowledge: Knowledge, h: float) -> None:
        self.knowledge, self.profile, self.h = knowledge, knowledge.profile, h
        self.guard: Guard = begin(identity(self.profile.d, self.profile.fraud_rate))
        self.rows: list[Floats] = []
        self.log: list[tuple[int, str]] = []

    def logit(self, x: Floats) -> Floats:
        """(n, d) to (n,): as the active state serves it."""
        state = self.guard.state.alignment
        return self.profile.logit(state.undo(x)) + state.logit_shift(self.profile.fraud_rate)

    def see(self, x: Floats) -> str:
        """A block (n, d) has been scored. Returns what was done, "" for nothing."""
        self.rows = [*self.rows, x][-10:]
        known = self.guard.known
        sums = tuple(sums_of(self.profile, self.profile.read(x, k.alignment), k.alignment.fraud_rate) for k in known)
        self.guard, action = on_block(self.guard, sums, self.profile, self.h)
        if isinstance(action, Ask):
            active = self.guard.state.alignment if self.guard.active else None
            found = diagnose(self.knowledge, self.rows[-action.blocks :], active)
            answer = answer_of(found, f"v{self.guard.count}")
            self.guard, action = on_answer(self.guard, answer, self.profile.deviation)
            self.log.append((self.guard.count, f"{found.verdict} n={found.rows} {found.reason}"))
        if isinstance(action, Activate):
            a = action.state.alignment
            moved = {f: (round(a.shift[f], 2), round(a.scale[f], 2)) for f in a.moved}
            self.log.append(
                (self.guard.count, f"-> {action.reason} {action.state.name} {moved} rate {a.fraud_rate:.3f}")
            )
            return action.reason
        return ""


def answer_of(found: Diagnosis, version: str) -> Answer:
    """What the guard reads of a diagnosis. version: of the repair."""
    return Answer(found.verdict, found.promote, found.blocks, found.active_fits, found.alignment, version)


def run(
    scene: Scenario, seed: int, knowledge: Knowledge, h: float, batches: int = CLEAN + DRIFTED
) -> tuple[list[Row], Pipeline]:
    """The stream of one seed, batch by batch."""
    pipeline = Pipeline(knowledge, h)
    rows = []
    for arrival in arrivals(scene, seed, knowledge.profile.logit, batches):
        x = arrival.x.astype(np.float64)
        logits = (knowledge.profile.logit(x), pipeline.logit(x), arrival.oracle)
        active = pipeline.guard.active > 0
        action = pipeline.see(x)
        rows.append(_row(knowledge.profile, arrival, logits, active, pipeline.guard.verdict, action))
    return rows, pipeline


def _row(profile: Profile, arrival: Arrival, logits: Sequence[Floats], active: bool, verdict: str, action: str) -> Row:
    fraud, costs = arrival.y == 1, profile.costs
    cut, dear = log_odds(profile.flag), log_odds(cost_threshold(costs))
    accuracy = [float(((s > cut) == fraud).mean()) for s in logits]
    cost = [
        float((costs.missed_fraud * (fraud & (s <= dear)) + costs.false_alarm * (~fraud & (s > dear))).mean())
        for s in logits
    ]
    return Row((accuracy[0], accuracy[1], accuracy[2]), (cost[0], cost[1], cost[2]), active, verdict, action)
