"""The table after the last batch: every stage scored on the same rows, which no stage was trained on.

Clean rows are the 1,000 that training held out; drifted ones are 1,000 others (150 fraud) whose normals have moved.
In the clean variant the stream holds neither; in the as-published variant it is drawn from the drifted ones.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from producer.generator import REFERENCE, Generator
from selfheal.experiment.ceiling import drifted_law, posterior
from selfheal.experiment.published import BATCH_ROWS, BATCHES, EVALUATION_ROWS
from shared.adapters import Adapter
from shared.bundle import Array, Bundle, Scores
from shared.forward import Folded, Network, probabilities
from shared.scores import expected_cost, scores

Labels = npt.NDArray[np.int8]
TRAIN_ROWS = 5_000  # as selfheal.training draws them, before the rows it holds out; a test holds the two together
_DRIFTED, _PUBLISHED_STREAM = 1, 2  # independent random streams of one seed


class Rows(msgspec.Struct, frozen=True):
    """x (n, d) float32, y (n,) of 0 and 1."""

    x: Array
    y: Labels


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One stage on its rows. Scores and counts at p > 0.5; cost: expected, per transaction, decided at the costs'
    own threshold (p > 1/6 for 1 and 5)."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    tp: int
    tn: int
    fp: int
    fn: int
    cost: float

    @property
    def scores(self) -> Scores:
        return Scores(accuracy=self.accuracy, precision=self.precision, recall=self.recall, f1=self.f1)


def clean_rows(seed: int) -> Rows:
    """The rows that training with this seed held out."""
    rng = np.random.default_rng(seed)
    REFERENCE.rows(rng, TRAIN_ROWS, exact=True)
    x, y = REFERENCE.rows(rng, EVALUATION_ROWS, exact=True)
    return Rows(x.astype(np.float32), y)


def drifted_generator(strength: float) -> Generator:
    """The published drift: normals at -strength, fraud where it was."""
    return Generator(REFERENCE.features, (drifted_law(strength),), REFERENCE.fraud_rate)


def drifted_rows(seed: int, strength: float) -> Rows:
    """The 1,000 drifted rows of the final table."""
    rng = np.random.default_rng([seed, _DRIFTED])
    x, y = drifted_generator(strength).rows(rng, EVALUATION_ROWS, exact=True)
    return Rows(x.astype(np.float32), y)


def stream_rows_as_published(seed: int, strength: float, batches: int = BATCHES) -> list[Rows]:
    """The published stream: each batch drawn from the table's rows, no row twice in a batch."""
    table, rng = drifted_rows(seed, strength), np.random.default_rng([seed, _PUBLISHED_STREAM])
    picks = [rng.choice(EVALUATION_ROWS, BATCH_ROWS, replace=False) for _ in range(batches)]
    return [Rows(table.x[pick], table.y[pick]) for pick in picks]


def outcome(p: npt.ArrayLike, y: Labels, bundle: Bundle) -> Outcome:
    """Score probabilities (n,) against labels (n,)."""
    found = scores(p, y, bundle.manifest.thresholds.flag)
    flag, fraud = np.asarray(p, np.float64) > bundle.manifest.thresholds.flag, y == 1
    return Outcome(
        accuracy=found.accuracy, precision=found.precision, recall=found.recall, f1=found.f1,
        tp=int((flag & fraud).sum()), tn=int((~flag & ~fraud).sum()),
        fp=int((flag & ~fraud).sum()), fn=int((~flag & fraud).sum()),
        cost=expected_cost(p, y, bundle.manifest.costs),
    )  # fmt: skip


def evaluate(
    bundle: Bundle, healed: Adapter, healed_as_published: Adapter, seed: int, strength: float
) -> dict[str, Outcome]:
    """Stage to outcome. clean, drift (the frozen network), healed and healed_as_published as published; besides
    healed_on_clean (what healing did to the rows of before), oracle (the true p(fraud | V14)), all_negative."""
    network = Network.of(bundle)
    both = [Folded.of(healed, network), Folded.of(healed_as_published, network)]
    clean, drifted = clean_rows(seed), drifted_rows(seed, strength)
    frozen_clean, healed_clean, _ = probabilities(clean.x, network, both)
    frozen, own, published = probabilities(drifted.x, network, both)
    oracle = posterior(drifted.x[:, bundle.watched_column].astype(np.float64), strength)
    return {
        "clean": outcome(frozen_clean, clean.y, bundle),
        "drift": outcome(frozen, drifted.y, bundle),
        "healed": outcome(own, drifted.y, bundle),
        "healed_as_published": outcome(published, drifted.y, bundle),
        "healed_on_clean": outcome(healed_clean, clean.y, bundle),
        "oracle": outcome(oracle, drifted.y, bundle),
        "all_negative": outcome(np.zeros(len(drifted.y)), drifted.y, bundle),
    }
