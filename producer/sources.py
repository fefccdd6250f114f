"""The synthetic source. A batch's rows depend on the seed and its number alone, whatever came before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from producer import drift
from producer.batch import Batch
from producer.generator import REFERENCE, Generator, Labels, Rows
from producer.heavy import HeavyTails
from shared.errors import OperatorError
from shared.records import MAX_ROWS


class Drawn(NamedTuple):
    """batch: as fed. law: what made its rows (n, d); rows: those, before the steps on rows."""

    batch: Batch
    law: Generator
    rows: Rows
    labels: Labels


@dataclass(frozen=True)
class Synthetic:
    """Batches 1, 2, .. without end. rows: a batch. exact: round(rows * fraud rate) frauds in each, not a random
    number. Raises OperatorError where a drift step cannot act on the generator."""

    seed: int
    rows: int = 100
    steps: tuple[drift.Step, ...] = ()
    generator: Generator = REFERENCE
    exact: bool = False
    labelled: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise OperatorError(f"seed {self.seed}: give 0 or more")
        if not 1 <= self.rows <= MAX_ROWS:
            raise OperatorError(f"{self.rows} rows a batch: give 1 to {MAX_ROWS}")
        drift.check(self.steps, self.features, labelled=True, generator=self.generator)

    @property
    def name(self) -> str:
        return f"s{self.seed}"

    @property
    def features(self) -> Sequence[str]:
        return self.generator.features

    def batch(self, k: int) -> Batch:
        """Batch k: its own random stream, so that a drift elsewhere changes nothing here."""
        return self.drawn(k).batch

    def drawn(self, k: int) -> Drawn:
        """Batch k, and what it was before the feed changed it."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(k,)))
        law = drift.generator_at(self.steps, self.generator, k)
        rows, labels = law.rows(rng, self.rows, exact=self.exact)
        amounts = law.amounts(rng, self.rows) if isinstance(law, HeavyTails) else None
        fed = drift.rows_at(self.steps, self.features, k, rows, labels)
        return Drawn(Batch(fed, labels, amounts=amounts), law, rows, labels)

    def batches(self) -> Iterator[Batch]:
        """All of them, in order."""
        return map(self.batch, itertools.count(1))
