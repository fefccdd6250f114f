"""Makes a bundle: trains the network on clean rows of the generator and measures it on held-out ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from producer.generator import REFERENCE, Generator
from shared import bundle as bundles
from shared.bundle import Array, Bundle
from shared.model import SelfHealingMLP, tensors_of

TRAIN_ROWS, TEST_ROWS, EPOCHS, BATCH, LEARNING_RATE = 5_000, 1_000, 20, 100, 1e-3
HIDDEN = 64


def fit(x: Array, y: Array, *, seed: int, on_epoch: Callable[[int], None] | None = None) -> SelfHealingMLP:
    """Adam 1e-3 on the cross-entropy, 20 epochs of batches of 100; the reflex stays the identity.

    x (n, d) float32, y (n,) float32 of 0/1. The same seed gives the same weights on the same machine.
    """
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    torch.manual_seed(seed)
    model = SelfHealingMLP(x.shape[1], HIDDEN)
    parameters = [*model.backbone.parameters(), *model.head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    rows, labels = torch.from_numpy(x), torch.from_numpy(y)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows), BATCH):
            picked = order[start : start + BATCH]
            optimiser.zero_grad()
            loss = binary_cross_entropy_with_logits(model.frozen(rows[picked]), labels[picked])
            loss.backward()
            optimiser.step()
        if on_epoch is not None:
            on_epoch(epoch + 1)
    return model


def scores(probability: Array, labels: Array, threshold: float = 0.5) -> bundles.Scores:
    """Accuracy, precision, recall and F1 of flagging above the threshold; 0 where a ratio is undefined."""
    flag, fraud = probability > threshold, labels == 1
    tp, fp, fn = int((flag & fraud).sum()), int((flag & ~fraud).sum()), int((~flag & fraud).sum())
    precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
    return bundles.Scores(
        accuracy=float((flag == fraud).mean()),
        precision=precision,
        recall=recall,
        f1=2 * tp / max(2 * tp + fp + fn, 1),
    )


def train(
    folder: Path, *, seed: int = 42, generator: Generator = REFERENCE, on_epoch: Callable[[int], None] | None = None
) -> Bundle:
    """Train on 5,000 rows of the generator, measure on 1,000 others, write the bundle to the folder."""
    rng = np.random.default_rng(seed)
    x, y = generator.rows(rng, TRAIN_ROWS, exact=True)
    held_x, held_y = generator.rows(rng, TEST_ROWS, exact=True)
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    model = fit(x32, y32, seed=seed, on_epoch=on_epoch)
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
            "seed": seed, "rows": TRAIN_ROWS, "epochs": EPOCHS, "batch": BATCH, "learning_rate": LEARNING_RATE,
        },
        weights_sha256="",
        reference_sha256="",
    )  # fmt: skip
    return bundles.save(folder, manifest, tensors_of(model), x32, y.astype(np.int8))
