"""Drift as composable steps: each changes the rows, or the generator that makes them, by a profile over batches.

Pure. Steps on rows work on any source; those on one class need its labels; those on the generator need the
synthetic source. Order: all generator steps, then the row steps as they were given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from producer.batch import Batch, BatchSource
from producer.generator import Generator, Informative, Labels, Rows
from shared.errors import OperatorError

Class = Literal["all", "normal", "fraud"]


@dataclass(frozen=True)
class Profile:
    """When a step is in force, in batch numbers from 1. first: the first drifted batch. over: grows linearly over
    so many batches, full at first + over - 1. every: on for so many batches, off for as many, and so on.
    until: the last drifted batch."""

    first: int = 1
    over: int = 1
    every: int | None = None
    until: int | None = None

    def weight(self, k: int) -> float:
        """How much of the step batch k sees, 0..1."""
        if k < self.first or (self.until is not None and k > self.until):
            return 0.0
        if self.every is not None:
            return 1.0 if (k - self.first) // self.every % 2 == 0 else 0.0
        return min(1.0, (k - self.first + 1) / self.over)


ALWAYS = Profile()


@dataclass(frozen=True)
class Shift:
    """feature + amount, in the feature's unit, for all rows or for one class."""

    feature: str
    amount: float
    only: Class = "all"
    profile: Profile = ALWAYS

    def apply(self, column: Rows, labels: Labels | None, weight: float) -> Rows:
        moved = column + weight * self.amount
        if self.only == "all" or labels is None:
            return moved
        return np.where(labels == (1 if self.only == "fraud" else 0), moved, column)


@dataclass(frozen=True)
class Scale:
    """pivot + factor * (feature - pivot)."""

    feature: str
    factor: float
    pivot: float = 0.0
    profile: Profile = ALWAYS

    def apply(self, column: Rows, labels: Labels | None, weight: float) -> Rows:
        return self.pivot + (1 + weight * (self.factor - 1)) * (column - self.pivot)


@dataclass(frozen=True)
class Unit:
    """factor * feature, from one batch to the next: the feed changed its unit."""

    feature: str
    factor: float
    profile: Profile = ALWAYS

    def apply(self, column: Rows, labels: Labels | None, weight: float) -> Rows:
        return column * self.factor


@dataclass(frozen=True)
class Outage:
    """The feed sends one constant for the feature."""

    feature: str
    value: float = 0.0
    profile: Profile = ALWAYS

    def apply(self, column: Rows, labels: Labels | None, weight: float) -> Rows:
        return np.full_like(column, self.value)


@dataclass(frozen=True)
class Swap:
    """The feed sends two columns in each other's place; several in a row make any order."""

    feature: str
    other: str
    profile: Profile = ALWAYS


@dataclass(frozen=True)
class Prior:
    """The fraud rate moves to rate."""

    rate: float
    profile: Profile = ALWAYS

    def change(self, g: Generator, weight: float) -> Generator:
        return replace(g, fraud_rate=g.fraud_rate + weight * (self.rate - g.fraud_rate))


@dataclass(frozen=True)
class Mechanism:
    """Fraud leaves its informative feature, where it now looks normal, and shows as mean on another."""

    feature: str
    other: str
    mean: float
    profile: Profile = ALWAYS

    def change(self, g: Generator, weight: float) -> Generator:
        left = _informative(g, self.feature)
        hidden = replace(
            left,
            fraud_mean=left.fraud_mean + weight * (left.normal_mean - left.fraud_mean),
            fraud_deviation=left.fraud_deviation + weight * (left.normal_deviation - left.fraud_deviation),
        )
        column = g.features.index(self.other)
        noise = Informative(column, 0.0, 1.0, 0.0, 1.0)
        shown = next((f for f in g.informative if f.column == column), noise)
        shown = replace(shown, fraud_mean=shown.fraud_mean + weight * (self.mean - shown.fraud_mean))
        kept = tuple(f for f in g.informative if f.column not in (left.column, column))
        return replace(g, informative=(*kept, hidden, shown))


@dataclass(frozen=True)
class Adapt:
    """Fraudsters adapt: the mean of fraud on an informative feature moves to mean."""

    feature: str
    mean: float
    profile: Profile = ALWAYS

    def change(self, g: Generator, weight: float) -> Generator:
        old = _informative(g, self.feature)
        new = replace(old, fraud_mean=old.fraud_mean + weight * (self.mean - old.fraud_mean))
        return replace(g, informative=tuple(new if f is old else f for f in g.informative))


@dataclass(frozen=True)
class Correlation:
    """Each noise feature comes to depend on the one before it, with this correlation; means and deviations stay."""

    rho: float
    profile: Profile = ALWAYS

    def change(self, g: Generator, weight: float) -> Generator:
        return replace(g, correlation=weight * self.rho)


@dataclass(frozen=True)
class Mimic:
    """A share of the normals looks like fraud, as after a campaign that changes how honest customers buy. From the rows
    alone this is a higher fraud rate: only labels tell the two apart."""

    share: float
    profile: Profile = ALWAYS

    def change(self, g: Generator, weight: float) -> Generator:
        return replace(g, mimics=weight * self.share)


RowStep = Shift | Scale | Unit | Outage | Swap
GeneratorStep = Prior | Mechanism | Adapt | Correlation | Mimic
Step = RowStep | GeneratorStep


def _informative(g: Generator, feature: str) -> Informative:
    found = next((f for f in g.informative if g.features[f.column] == feature), None)
    if found is None:
        names = ", ".join(g.features[f.column] for f in g.informative)
        raise OperatorError(f"drift: {feature} tells nothing about fraud in this generator; {names} does")
    return found


def generator_at(steps: Sequence[Step], g: Generator, k: int) -> Generator:
    """The generator that makes batch k. Raises OperatorError where a step names a feature it cannot act on."""
    for step in steps:
        if isinstance(step, GeneratorStep) and (weight := step.profile.weight(k)):
            g = step.change(g, weight)
    return g


def rows_at(steps: Sequence[Step], features: Sequence[str], k: int, rows: Rows, labels: Labels | None) -> Rows:
    """Rows (n, d) of batch k after the row steps; the given array is left as it was."""
    active = [(s, w) for s in steps if isinstance(s, RowStep) and (w := s.profile.weight(k))]
    if not active:
        return rows
    rows = rows.copy()
    for step, weight in active:
        column = features.index(step.feature)
        if isinstance(step, Swap):
            other = features.index(step.other)
            rows[:, [column, other]] = rows[:, [other, column]]
        else:
            rows[:, column] = step.apply(rows[:, column], labels, weight)
    return rows


def check(steps: Sequence[Step], features: Sequence[str], *, labelled: bool, generator: Generator | None) -> None:
    """Can these steps act on such a source? Raises OperatorError, which names the step and the way out."""
    for step in steps:
        kind = type(step).__name__.lower()
        for name in (getattr(step, "feature", None), getattr(step, "other", None)):
            if name is not None and name not in features:
                raise OperatorError(f"drift {kind}: no feature {name!r} here; there are {', '.join(features[:30])}")
        if isinstance(step, GeneratorStep):
            if generator is None:
                raise OperatorError(f"drift {kind} changes how rows are made: only the synthetic source can do it")
            step.change(generator, 1.0)
        elif isinstance(step, Shift) and step.only != "all" and not labelled:
            raise OperatorError(f"drift shift with class={step.only} needs labels, and this source has none")


@dataclass(frozen=True)
class Drifted:
    """Another source with row steps applied; batch numbers count from 1 as they come."""

    source: BatchSource
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        check(self.steps, self.source.features, labelled=self.source.labelled, generator=None)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def features(self) -> Sequence[str]:
        return self.source.features

    @property
    def labelled(self) -> bool:
        return self.source.labelled

    def batches(self) -> Iterator[Batch]:
        """The source's batches, drifted."""
        for k, batch in enumerate(self.source.batches(), start=1):
            yield replace(batch, rows=rows_at(self.steps, self.source.features, k, batch.rows, batch.labels))
