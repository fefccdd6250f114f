"""Learning from labels: the ReflexiveLayer alone, held near its start, on rows as the alignment reads them.

Loss of a minibatch: BCE(p, label) + rule weight * BCE(p, rule) + ANCHOR * |w - w0|^2, w0 the bundle's own reflex. No
entropy term: it rewards certainty, right or wrong. What is published is the mean of the weights over the second half
of the steps.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from healer.trust import Anchor
from shared.adam import Adam
from shared.adapters import Adapter
from shared.bundle import Array, Bundle
from shared.errors import Refused
from shared.forward import Folded, Network
from shared.model import model_of, name_of

STEPS = 20  # Adam's, for each fresh batch
STEPS_MAX = 200  # a request
LEARNING_RATE = 3e-3
MINIBATCH = 128
LABELLED_MIN = 50  # below, a reflex would learn the noise


class Learned(NamedTuple):
    """The trained adapter, under its base's names; steps taken; loss: of the labels in the last step's minibatch, bare;
    distance: |w - w0| over all tensors of the reflex."""

    adapter: Adapter
    steps: int
    loss: float
    distance: float


def learn(
    bundle: Bundle, base: Adapter, x: Array, y: npt.NDArray[np.int8], *, fresh: int, rule_weight: float, seed: str
) -> Learned:
    """x (n, d) float32 as fed, y (n,) of 0/1, all labelled. fresh: batches not learned from before. seed: any text;
    same arguments, same bytes. Adam goes on from the base's own state. Raises Refused: fewer than LABELLED_MIN rows,
    or a result that is not finite."""
    if len(x) < LABELLED_MIN:
        raise Refused(f"too-few-labels: {len(x)} labelled rows in complete batches, {LABELLED_MIN} are the least")
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    model = model_of(bundle, base)
    model.freeze_for_healing()
    learning = {name_of(k): p for k, p in model.named_parameters() if p.requires_grad}
    anchor, adam = Anchor(bundle, learning, len(x)), Adam(learning, LEARNING_RATE, base.optim)
    rows = Folded.of(base, Network.of(bundle)).undo(x)
    with torch.no_grad():  # the backbone is frozen: one pass serves all steps
        hidden = model.backbone(torch.from_numpy(rows))
    truth = torch.from_numpy(y.astype(np.float32))
    rule = torch.from_numpy(bundle.rule_says_fraud(rows).astype(np.float32))
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(seed.encode()).digest(), np.uint32))

    def step() -> Tensor:
        pick = torch.from_numpy(rng.integers(0, len(x), MINIBATCH))
        logits = model.healed(hidden[pick]) + base.logit_shift
        label_loss = binary_cross_entropy_with_logits(logits, truth[pick])
        total = label_loss + anchor.penalty()
        if rule_weight:
            total = total + rule_weight * binary_cross_entropy_with_logits(logits, rule[pick])
        torch.autograd.backward(total)
        adam.step()
        anchor.hold()
        return label_loss.detach()

    steps = min(STEPS * max(fresh, 1), STEPS_MAX)
    for _ in range(steps - steps // 2 - 1):
        step()
    loss = step()
    total = {name: torch.zeros_like(p) for name, p in learning.items()}
    for _ in range(steps // 2):
        loss = step()
        for name, p in learning.items():
            total[name] += p.detach()
    # The mean of the second half's weights: a fixed rate keeps the last ones jumping about the minimum (Polyak and
    # Juditsky 1992). Adam goes on from it with the moments of the last step.
    reflex = {name: (t / (steps // 2)).numpy() for name, t in total.items()}
    adapter = msgspec.structs.replace(base, reflex=reflex, optim=adam.state())
    if not all(np.isfinite(n).all() for n in [*adapter.reflex.values(), *adapter.optim.values()]):
        raise Refused("the fit ran off to numbers that are not finite")
    return Learned(adapter, steps, loss.item(), anchor.distance(reflex))
