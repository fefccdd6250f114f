"""Whether a published figure is one that our process gives: inside of our interval, and if not, how often otherwise.

One rule for every figure. Outside of the 90% interval of the seeds that ran, it is held against further, simulated
seeds, trained as the published script trains (as_script.py): inside of their 90% interval, that difference explains it.
Else it is counted how many further seeds of ours lie as far out: at least 5%: few seeds, a narrow interval. Some: rare.
None: open, and said so. The two ends of the lift's range are one observation, so they are judged together.

Nineteen looks find something rare in any run. So the whole is judged too: how many figures lie outside, against how
many of each further seed's own do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from monitor import health
from producer.generator import REFERENCE
from selfheal.experiment.ceiling import drifted_law
from selfheal.experiment.published import BATCH_ROWS, BATCHES, COUNTS, EVALUATION_ROWS, FIGURES, Figure
from selfheal.experiment.summary import Numbers, at

Verdict = Literal["inside", "explained", "narrow", "rare", "open"]
USUAL = 0.05  # one side of a 90% interval
SIMULATED = 400
ROUNDING = 0.0005  # published to three digits
FRAUDS = round(EVALUATION_ROWS * REFERENCE.fraud_rate)
RANGE = ("smallest lift", "largest lift")


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside ours: median, 5% and 95% of the seeds that ran. text: the counts behind the verdict."""

    figure: Figure
    median: float
    p05: float
    p95: float
    verdict: Verdict
    text: str


class Compared(NamedTuple):
    """Every published figure, and all of them together. simulated: how many further seeds there are; outside: how
    many published figures lie outside of these seeds' 90% intervals; as_many: seeds of which as many or more do."""

    figures: list[Explained]
    simulated: int
    outside: int
    as_many: int

    @property
    def usual(self) -> bool:
        """Whether the published run as a whole is one that the further seeds give."""
        return self.as_many >= USUAL * self.simulated


def explain(summary: Numbers, more: Sequence[Numbers], strength: float) -> Compared:
    """Every published figure. more: summaries of the further seeds, at least two."""
    figures = [_explain(figure, summary, more, strength) for figure in FIGURES]
    published = np.array([figure.value for figure in FIGURES])
    seeds = np.array([[each["script"][figure.name] for figure in FIGURES] for each in more], np.float64)
    outside = _outside(published, seeds)
    as_many = sum(_outside(seed, np.delete(seeds, i, axis=0)) >= outside for i, seed in enumerate(seeds))
    return Compared(figures, len(more), outside, as_many)


def _outside(run: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> int:
    """run (19,), others (n, 19): how many of the run's figures are outside of the others' 90% intervals."""
    low, high = np.quantile(others, (USUAL, 1 - USUAL), axis=0)
    return int(((run < low - ROUNDING) | (run > high + ROUNDING)).sum())


def _explain(figure: Figure, summary: Numbers, more: Sequence[Numbers], strength: float) -> Explained:
    ours = at(summary, figure.path)
    verdict: Verdict = "inside"
    text = ""
    if not ours["p05"] - ROUNDING <= figure.value <= ours["p95"] + ROUNDING:
        verdict, text = lift_range(more) if figure.name in RANGE else _by_script(figure, more)
        if verdict != "explained":
            side = math.copysign(1, figure.value - ours["median"])
            far = sum((float(at(each, figure.path)) - figure.value) * side >= -ROUNDING for each in more)
            verdict, counted = _judged(far, len(more))
            text = f"{counted}; {text}"
            if figure.path[:2] == ("stages", "drift"):
                tp, tn, _, _ = COUNTS["drift"]
                threshold, p = rule_distance(tp, tn, strength)
                text += f"; its shadow is another network: nearest rule V14 < {threshold:.2f}, p = {p:.3f}"
    return Explained(
        figure=figure, median=ours["median"], p05=ours["p05"], p95=ours["p95"], verdict=verdict, text=text
    )  # fmt: skip


def _judged(far: int, of: int) -> tuple[Verdict, str]:
    verdict: Verdict = "narrow" if far >= USUAL * of else "rare" if far else "open"
    return verdict, f"{far} of {of} further seeds lie as far out"


def _by_script(figure: Figure, more: Sequence[Numbers]) -> tuple[Verdict, str]:
    low, high = np.quantile([each["script"][figure.name] for each in more], (USUAL, 1 - USUAL))
    inside = low - ROUNDING <= figure.value <= high + ROUNDING
    text = f"trained as the script does: [{low:.{figure.digits}f}, {high:.{figure.digits}f}]"
    return ("explained" if inside else "open"), text


def lift_range(more: Sequence[Numbers]) -> tuple[Verdict, str]:
    """How many further seeds, trained as the script does, keep all their lifts within the published range."""
    low, high = (figure.value for name in RANGE for figure in FIGURES if figure.name == name)
    within = sum(
        each["script"][RANGE[0]] >= low - ROUNDING and each["script"][RANGE[1]] <= high + ROUNDING for each in more
    )
    text = f"trained as the script does, {within} of {len(more)} further seeds keep within the range at both ends"
    return ("explained" if within >= USUAL * len(more) else "open"), text


def rule_distance(tp: int, tn: int, strength: float) -> tuple[float, float]:
    """(threshold, p): the rule V14 < threshold whose recall and specificity on this drift are nearest to the published
    counts, and the probability of counts as far from it (chi-square, one degree of freedom: the threshold is free)."""
    law, positives, negatives = drifted_law(strength), FRAUDS, EVALUATION_ROWS - FRAUDS
    best = (0.0, math.inf)
    for threshold in np.linspace(-4, 0, 801):
        recall = _below(threshold, law.fraud_mean, law.fraud_deviation)
        false_rate = _below(threshold, law.normal_mean, law.normal_deviation)
        distance = (tp - positives * recall) ** 2 / (positives * recall * (1 - recall))
        distance += (negatives - tn - negatives * false_rate) ** 2 / (negatives * false_rate * (1 - false_rate))
        best = min(best, (float(threshold), distance), key=lambda found: found[1])
    return best[0], math.erfc(math.sqrt(best[1] / 2))


def _below(x: float, mean: float, deviation: float) -> float:
    return 0.5 * math.erfc((mean - x) / (deviation * math.sqrt(2)))


def idle_rollbacks(
    recall: float, false_rate: float, *, rows: int = BATCH_ROWS, f1_drop: float = 0.08, acc_drop: float = 0.10,
    window: int = 5, runs: int = SIMULATED, seed: int = 0,
) -> float:  # fmt: skip
    """Share of 25-batch runs in which the published rule rolls back although nothing ever changes: one fixed
    classifier of this recall and false-alarm rate, scored on batches of `rows`, by the monitor's own functions."""
    rng = np.random.default_rng(seed)
    frauds = round(rows * REFERENCE.fraud_rate)
    fired = 0
    for _ in range(runs):
        state = health.Health()
        hits = rng.binomial(frauds, recall, BATCHES)
        alarms = rng.binomial(rows - frauds, false_rate, BATCHES)
        for tp, fp in zip(hits.tolist(), alarms.tolist(), strict=True):
            f1 = 2 * tp / max(tp + fp + frauds, 1)
            state = health.updated(state, health.Score(f1, (tp + rows - frauds - fp) / rows), window)
            if health.decay(state, f1_drop, acc_drop) is not None:
                fired += 1
                break
    return fired / runs
