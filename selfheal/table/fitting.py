"""The network of a table: trained on scaled columns, calibrated, and the scaling folded into its first layer.

What goes over the wire is in the table's own units, so that diagnosis can say `amount arrives x100`; hence no scaling
outside of the network.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from shared.adam import Adam
from shared.alignment import Floats
from shared.bundle import Array
from shared.model import SelfHealingMLP

HIDDEN = 64
EPOCHS, PATIENCE = 60, 8  # epochs without a better check loss before it ends
STEPS_MAX = 12_000
LEARNING_RATE, DECAY = 2e-3, 5e-4  # decay: L2 on the weights, not the biases
REACH = 30.0  # scaled values beyond it are trained on as if they stood there: one of 1,000 would drown all others
GRADIENT_MAX = 1.0
BATCHES = 60  # an epoch, within the two bounds
SMALLEST, LARGEST = 64, 1_024
SLOPE_PRIOR = 5.0  # weight of "the slope is 1" in the calibration, in rows of full information


class Fitted(NamedTuple):
    """model: takes rows (n, d) as they are on the wire. epochs: until the best check loss. slope, offset: of the
    calibration."""

    model: SelfHealingMLP
    epochs: int
    slope: float
    offset: float


class Scaling(NamedTuple):
    """A column as the network trains on it: (x - centre) * factor; factor 0 for one that never changes."""

    centre: Floats
    factor: Floats


def scaling(x: Array, many: list[bool]) -> Scaling:
    """x (n, d). Columns of many values: median and interquartile range / 1.349, a normal law's deviation;
    others, and those whose middle half is one value: mean and deviation."""
    rows = x.astype(np.float64)
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    robust = np.array(many) & (high > low)
    centre, spread = np.where(robust, middle, centre), np.where(robust, (high - low) / 1.349, spread)
    return Scaling(centre, np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0.0))


def fit_table(x: Array, y: Array, check_x: Array, check_y: Array, *, many: list[bool], seed: int) -> Fitted:
    """x (n, d), y (n,) of 0/1, both float32; check rows end the training, choose its best epoch and calibrate it.

    Adam on the cross-entropy. The same seed gives the same weights on the same machine. 3 s at 6,000 x 20.
    """
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    torch.manual_seed(seed)
    scale = scaling(x, many)
    model = SelfHealingMLP(x.shape[1], HIDDEN)
    rows, labels = torch.from_numpy(_scaled(x, scale)), torch.from_numpy(y)
    check, truth = torch.from_numpy(_scaled(check_x, scale)), torch.from_numpy(check_y)
    _spread_kinks(model, rows)
    with torch.no_grad():
        model.head.bias.fill_(float(np.log(y.mean() / (1 - y.mean()))))
    best, epochs = _descend(model, rows, labels, check, truth)
    model.load_state_dict(best)
    with torch.inference_mode():
        logit = model.frozen(check).numpy().astype(np.float64)
    slope, offset = calibration(logit, check_y.astype(np.float64))
    _fold(model, scale, slope, offset)
    return Fitted(model, epochs, slope, offset)


def _scaled(x: Array, scale: Scaling) -> Array:
    """(n, d) float32, within REACH."""
    return np.clip((x - scale.centre) * scale.factor, -REACH, REACH).astype(np.float32)


def _spread_kinks(model: SelfHealingMLP, rows: Tensor) -> None:
    """Each hidden unit of the first layer begins to act at a training row: skewed columns have most rows in a small
    part of their range, and kinks elsewhere would tell nothing."""
    named = dict(model.named_parameters())
    picked = rows[torch.randint(len(rows), (HIDDEN,))]  # (h, d)
    with torch.no_grad():
        named["backbone.0.bias"].copy_(-(named["backbone.0.weight"] * picked).sum(dim=1))


def _descend(
    model: SelfHealingMLP, rows: Tensor, labels: Tensor, check: Tensor, truth: Tensor
) -> tuple[dict[str, Tensor], int]:
    """The weights of the epoch with the least check loss, and its number."""
    learning = {n: p for n, p in model.named_parameters() if not n.startswith("reflex.")}
    weights = [p for n, p in learning.items() if n.endswith("weight")]
    optimiser = Adam(learning, LEARNING_RATE)
    batch = min(max(len(rows) // BATCHES, SMALLEST), LARGEST)
    least, best, at, steps = float("inf"), dict(model.state_dict()), 0, 0
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(len(rows))
        for start in range(0, len(rows), batch):
            picked = order[start : start + batch]
            loss = binary_cross_entropy_with_logits(model.frozen(rows[picked]), labels[picked])
            loss = loss + DECAY * torch.stack([(w * w).sum() for w in weights]).sum()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(learning.values(), GRADIENT_MAX)
            optimiser.step()
            steps += 1
        with torch.inference_mode():
            checked = binary_cross_entropy_with_logits(model.frozen(check), truth).item()
        if checked < least:
            least, at = checked, epoch
            best = {name: value.clone() for name, value in model.state_dict().items()}
        if epoch - at >= PATIENCE or steps >= STEPS_MAX:
            break
    return best, at


def calibration(logit: Floats, y: Floats) -> tuple[float, float]:
    """Slope and offset of the logit that make it a probability (Platt 1999), by Newton's method on the log loss with
    a prior that the slope is 1; logit, y (n,), y of 0/1. The slope stays in 0.2..2."""
    slope, offset = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(slope * logit + offset, -40, 40)))
        w = p * (1 - p)
        gradient = np.array([((p - y) * logit).sum() + SLOPE_PRIOR * (slope - 1), (p - y).sum()])
        cross = (w * logit).sum()
        curve = np.array([[(w * logit * logit).sum() + SLOPE_PRIOR, cross], [cross, w.sum() + 1e-9]])
        step = np.linalg.solve(curve, gradient)
        step /= max(1.0, float(np.abs(step).max()))
        slope, offset = float(np.clip(slope - step[0], 0.2, 2.0)), offset - float(step[1])
        if float(np.abs(step).max()) < 1e-8:
            break
    return slope, offset


def _fold(model: SelfHealingMLP, scale: Scaling, slope: float, offset: float) -> None:
    """W (f (x - c)) + b = (W f) x + (b - (W f) c), and the calibration into the head; in double precision."""
    named = dict(model.named_parameters())
    first, start = named["backbone.0.weight"], named["backbone.0.bias"]
    with torch.no_grad():
        weight = first.double() * torch.from_numpy(scale.factor)
        start.copy_(start.double() - weight @ torch.from_numpy(scale.centre))
        first.copy_(weight)
        model.head.weight.mul_(slope)
        model.head.bias.mul_(slope).add_(offset)
