"""Makes a bundle: trains the network on clean rows of the generator and measures it on held-out ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from producer.generator import REFERENCE, Generator
from shared import bundle as bundles
from shared.adam import Adam
from shared.bundle import Array, Bundle
from shared.model import SelfHealingMLP, tensors_of
from shared.scores import scores

TRAIN_ROWS, TEST_ROWS, KEPT_ROWS, EPOCHS, BATCH, LEARNING_RATE = 5_000, 1_000, 10_000, 20, 100, 1e-3
HIDDEN = 64


def fit(
    x: Array, y: Array, *, seed: int, epochs: int = EPOCHS, together: bool = False,
    on_epoch: Callable[[int], None] | None = None,
) -> SelfHealingMLP:  # fmt: skip
    """Adam 1e-3 on the cross-entropy, batches of 100; the reflex stays the identity, unless all learn together.

    x (n, d) float32, y (n,) float32 of 0/1. on_epoch hears 1, 2, .. after each epoch. The same seed gives the
    same weights on the same machine. About 0.6 s at 5,000 rows and 20 epochs.
    """
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    torch.manual_seed(seed)
    model = SelfHealingMLP(x.shape[1], HIDDEN)
    if together:
        model.reflex.start_anywhere()
    learning = {n: p for n, p in model.named_parameters() if together or not n.startswith("reflex.")}
    optimiser = Adam(learning, LEARNING_RATE)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)
    for epoch in range(epochs):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows), BATCH):
            picked = order[start : start + BATCH]
            logits = model(rows[picked]) if together else model.frozen(rows[picked])
            loss = binary_cross_entropy_with_logits(logits, labels[picked])
            torch.autograd.backward(loss)
            optimiser.step()
        if on_epoch is not None:
            on_epoch(epoch + 1)
    return model


def train(
    folder: Path, *, seed: int = 42, generator: Generator = REFERENCE, epochs: int = EPOCHS,
    on_epoch: Callable[[int], None] | None = None,
) -> Bundle:  # fmt: skip
    """Train on 5,000 rows of the generator, measure on 1,000 others, keep 10,000 further ones for diagnosis (what the
    network says of rows it was trained on is too sure), write the bundle to the folder.

    15% of each are frauds, exactly, as published. Needs 0.6 s and PyTorch; on_epoch as in fit.
    """
    rng = np.random.default_rng(seed)
    x, y = generator.rows(rng, TRAIN_ROWS, exact=True)
    held_x, held_y = generator.rows(rng, TEST_ROWS, exact=True)
    kept_x, kept_y = generator.rows(rng, KEPT_ROWS, exact=True)
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    model = fit(x32, y32, seed=seed, epochs=epochs, on_epoch=on_epoch)
    with torch.inference_mode():
        held = torch.sigmoid(model.frozen(torch.from_numpy(held_x.astype(np.float32)))).numpy()
    grid = np.linspace(0, 1, 101)
    manifest = bundles.Manifest(
        schema=bundles.SCHEMA,
        features=list(generator.features),
        hidden=HIDDEN,
        rule=bundles.Rule(feature="V14", op="<", threshold=-1.5),
        watched="V14",
        thresholds=bundles.Thresholds(),
        costs=bundles.Costs(),
        fraud_rate=float(y.mean()),
        clean=scores(held, held_y),
        statistics={
            name: bundles.FeatureStatistics(
                mean=float(column.mean()), deviation=float(column.std()), quantiles=np.quantile(column, grid).tolist()
            )
            for name, column in zip(generator.features, x.T, strict=True)
        },
        training={
            "seed": seed, "rows": TRAIN_ROWS, "epochs": epochs, "batch": BATCH, "learning_rate": LEARNING_RATE,
        },
        weights_sha256="",
        reference_sha256="",
    )  # fmt: skip
    return bundles.save(folder, manifest, tensors_of(model), kept_x.astype(np.float32), kept_y.astype(np.int8))
