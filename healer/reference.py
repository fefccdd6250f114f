"""The published heal: five Adam steps on the ReflexiveLayer, towards the labels, the rule, and certainty."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from shared.adam import Adam
from shared.adapters import Adapter
from shared.bundle import Array, Bundle
from shared.errors import Refused
from shared.forward import Folded, Network, probabilities
from shared.model import model_of, name_of
from shared.scores import scores

LABEL_WEIGHT, RULE_WEIGHT, ENTROPY_WEIGHT = 0.70, 0.24, 0.03  # 0.24 = (1 - 0.70) * 0.80
STEPS, LEARNING_RATE = 5, 0.003
STEPS_MAX = 1_000
UNLABELLED = -1
Labels = npt.NDArray[np.int8]  # 1 fraud, 0 not, -1 not known


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a heal went. Accuracy and F1 (at the flag threshold, by the scorer's own forward pass, None without a
    label) are of the labelled rows before and after. loss_*: at the last step, before its update; the terms bare,
    loss_total weighted. fraud_frac: share of frauds among the labelled conflicts."""

    rows: int
    labelled: int
    conflicts: int
    fraud_frac: float
    pos_weight: float
    accuracy_before: float | None
    f1_before: float | None
    accuracy_after: float | None
    f1_after: float | None
    loss_total: float
    loss_label: float | None
    loss_rule: float | None
    loss_entropy: float


class Healed(msgspec.Struct, frozen=True):
    """The fitted adapter, still under its base's version and parent (who publishes it names it), and how it went."""

    adapter: Adapter
    summary: Summary


class Losses(msgspec.Struct, frozen=True):
    """Scalars; label and rule None where there is nothing to compare with."""

    total: Tensor
    label: Tensor | None
    rule: Tensor | None
    entropy: Tensor


def pos_weight(fraud_frac: float) -> float:
    """How much more a fraud's label counts: 1 below 10% frauds among the conflicts, then 2, rising to 4 at 30%."""
    return 1.0 if fraud_frac < 0.10 else min(2 + 10 * (fraud_frac - 0.10), 4.0)


def losses(logits: Tensor, labels: Tensor, known: Tensor, rule: Tensor | None, weight: float) -> Losses:
    """0.70 BCE(p, label, weight of frauds) + 0.24 BCE(p, rule) + 0.03 entropy(p), each a mean over its rows.

    logits (n,); labels (n,) 0/1, read only where known (n,) bool; rule (n,) 0/1, None without one. A term without
    rows is left out. From logits, the same numbers without a logarithm of zero: H(p) = softplus(z) - z p.
    """
    entropy = (softplus(logits) - logits * torch.sigmoid(logits)).mean()
    total = ENTROPY_WEIGHT * entropy
    by_label = by_rule = None
    if bool(known.any()):
        by_label = binary_cross_entropy_with_logits(logits[known], labels[known], pos_weight=torch.tensor(weight))
        total = total + LABEL_WEIGHT * by_label
    if rule is not None:
        by_rule = binary_cross_entropy_with_logits(logits, rule)
        total = total + RULE_WEIGHT * by_rule
    return Losses(total, by_label, by_rule, entropy)


def heal(
    bundle: Bundle, base: Adapter, x: Array, labels: Labels | None = None, heal_steps: int = STEPS,
    heal_lr: float = LEARNING_RATE,
) -> Healed:  # fmt: skip
    """Fit the base's reflex to these rows; its alignment and correction of the logit stay as they are.

    x (n, d) float32 in the bundle's order, labels (n,) or None. The optimiser goes on from the base's own state,
    as one Adam lives through all heals of the published script. Same arguments, same bytes. Raises Refused: no
    rows, neither a label nor a rule, parameters out of range, or a result that is not finite.
    """
    labels = np.full(len(x), UNLABELLED, np.int8) if labels is None else labels
    known, rule = labels != UNLABELLED, bundle.rule_says_fraud(x)
    if len(x) == 0:
        raise Refused("no rows to heal on")
    if not known.any() and bundle.manifest.rule is None:
        raise Refused("nothing to learn from: no row has a label and the bundle has no rule")
    if not 1 <= heal_steps <= STEPS_MAX:
        raise Refused(f"{heal_steps} is not in 1..{STEPS_MAX}", "parameters.heal_steps")
    if not 0 < heal_lr <= 1:
        raise Refused(f"{heal_lr:g} is not in (0, 1]", "parameters.heal_lr")
    before = _served(bundle, base, x)
    conflicts = rule & (before < bundle.manifest.thresholds.conflict)
    judged = conflicts & known
    fraud_frac = float(labels[judged].mean()) if judged.any() else 0.0
    weight = pos_weight(fraud_frac)
    adapter, loss = _fit(bundle, base, x, labels, rule, weight, heal_steps, heal_lr)
    after = _served(bundle, adapter, x)
    numbers = [*adapter.reflex.values(), *adapter.optim.values(), after]
    if not all(np.isfinite(n).all() for n in numbers):
        raise Refused(f"the fit ran off to numbers that are not finite (heal_lr {heal_lr:g})")
    was = scores(before[known], labels[known], bundle.manifest.thresholds.flag) if known.any() else None
    now = scores(after[known], labels[known], bundle.manifest.thresholds.flag) if known.any() else None
    return Healed(
        adapter,
        Summary(
            rows=len(x),
            labelled=int(known.sum()),
            conflicts=int(conflicts.sum()),
            fraud_frac=fraud_frac,
            pos_weight=weight,
            accuracy_before=was.accuracy if was else None,
            f1_before=was.f1 if was else None,
            accuracy_after=now.accuracy if now else None,
            f1_after=now.f1 if now else None,
            loss_total=loss.total.item(),
            loss_label=None if loss.label is None else loss.label.item(),
            loss_rule=None if loss.rule is None else loss.rule.item(),
            loss_entropy=loss.entropy.item(),
        ),
    )


def _fit(
    bundle: Bundle, base: Adapter, x: Array, labels: Labels, rule: npt.NDArray[np.bool_], weight: float,
    steps: int, lr: float,
) -> tuple[Adapter, Losses]:  # fmt: skip
    """The steps themselves; the losses are the last step's."""
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    model = model_of(bundle, base)
    model.freeze_for_healing()
    learning = {name_of(k): p for k, p in model.named_parameters() if p.requires_grad}
    adam = Adam(learning, lr, base.optim)
    truth, known = torch.from_numpy(labels.astype(np.float32)), torch.from_numpy(labels != UNLABELLED)
    says = None if bundle.manifest.rule is None else torch.from_numpy(rule.astype(np.float32))
    with torch.no_grad():  # the backbone is frozen: one pass serves all steps
        hidden = model.backbone(torch.from_numpy((x - base.shift) / base.scale))

    def step() -> Losses:
        loss = losses(model.healed(hidden) + base.logit_shift, truth, known, says, weight)
        torch.autograd.backward(loss.total)
        adam.step()
        return loss

    last = [step() for _ in range(steps)][-1]
    reflex = {k: p.detach().numpy().copy() for k, p in learning.items()}
    return msgspec.structs.replace(base, reflex=reflex, optim=adam.state()), last


def _served(bundle: Bundle, adapter: Adapter, x: Array) -> Array:
    """(n, d) to (n,): what the scorer says with this adapter."""
    network = Network.of(bundle)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at what comes out
        return probabilities(x, network, [Folded.of(adapter, network)])[1]
