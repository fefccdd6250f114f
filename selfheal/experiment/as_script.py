"""The published figures where a network is trained as the published script trains it, simulated.

Two things in which ours differs by design: there all 13,250 parameters learn together, and the shadow is a second
network trained apart. Here the reflex starts as the identity and the shadow is the same network without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from producer.generator import REFERENCE
from selfheal.experiment.evaluate import Rows, clean_rows, drifted_rows
from selfheal.experiment.simulate import simulate, stream
from selfheal.experiment.summary import Parameters, lift
from selfheal.training import TRAIN_ROWS, fit
from shared import bundle as bundles
from shared.adapters import Adapter, first_adapter
from shared.bundle import Array, Bundle
from shared.forward import Folded, Network, probabilities
from shared.manifest import Scores
from shared.model import tensors_of
from shared.scores import scores


def trained_together(folder: Path, seed: int, like: Bundle) -> Bundle:
    """The rows of selfheal.training.train with this seed; everything but the weights as in `like`."""
    x, y = REFERENCE.rows(np.random.default_rng(seed), TRAIN_ROWS, exact=True)
    model = fit(x.astype(np.float32), y.astype(np.float32), seed=seed, together=True)
    return bundles.save(folder, like.manifest, tensors_of(model), like.reference_x, like.reference_y)


def served(bundle: Bundle, x: Array, adapter: Adapter | None = None) -> Array:
    """(n, d) to (n,): probabilities through an adapter, None: the bundle's own."""
    network = Network.of(bundle)
    return probabilities(x, network, [Folded.of(adapter or first_adapter(bundle), network)])[1]


def as_script(bundle: Bundle, shadow: Bundle, seed: int, parameters: Parameters) -> dict[str, float]:
    """Figure name (published.FIGURES) to its value: the as-published stream, both networks trained together."""
    batches = stream(seed, "as_published", parameters)
    run, adapters = simulate(bundle, batches, seed=seed, parameters=parameters)
    table = drifted_rows(seed, parameters.drift_strength)
    clean = clean_rows(seed)
    drift, healed = (
        _scores(served(shadow, table.x), table),
        _scores(served(bundle, table.x, adapters[run.active]), table),
    )
    stages = {"clean": _scores(served(bundle, clean.x), clean), "drift": drift, "healed": healed}
    after = [row.accuracy_post_heal for row in run.rows]
    frozen = [_scores(served(shadow, batch.x), batch).accuracy for batch in batches]
    lifts = lift([None if a is None else a - f for a, f in zip(after, frozen, strict=True)])
    return {
        **{f"{stage} {name}": value for stage, found in stages.items() for name, value in _named(found).items()},
        "recovery": healed.accuracy - drift.accuracy,
        **{f"{name} lift": lifts[key] for name, key in (("mean", "mean"), ("smallest", "min"), ("largest", "max"))},
        "batches with a positive lift": lifts["positive_batches"],
        "snapshots": 1 + 2 * len(run.of_kind("heal-finished")),
        "rollbacks": len(run.of_kind("rolled-back")),
    }  # fmt: skip


def _scores(p: Array, rows: Rows) -> Scores:
    return scores(p, rows.y)


def _named(found: Scores) -> Mapping[str, float]:
    return {"accuracy": found.accuracy, "precision": found.precision, "recall": found.recall, "F1": found.f1}
