"""The published heal: its formula by hand, what it may touch, and an optimiser that goes back with the weights."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.nn.functional import binary_cross_entropy

from healer.reference import ENTROPY_WEIGHT, LABEL_WEIGHT, RULE_WEIGHT, Healed, heal, losses, pos_weight
from producer.generator import REFERENCE
from shared.adam import Adam
from shared.adapters import Adapter, first_adapter, pack, unpack
from shared.bundle import Bundle
from shared.errors import Refused
from shared.forward import Folded, Network, probabilities
from shared.model import model_of
from shared.scores import scores


def drifted(seed: int, rows: int = 100, strength: float = 2.2) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the published drift: normals moved, frauds where they were. (n, 10) float32, (n,) int8."""
    x, y = REFERENCE.rows(np.random.default_rng(seed), rows, exact=True)
    x[y == 0, 7] -= strength
    return x.astype(np.float32), y


def probability(bundle: Bundle, adapter: Adapter, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the shadow and of the adapter."""
    network = Network.of(bundle)
    frozen, adapted = probabilities(x, network, [Folded.of(adapter, network)])
    return frozen, adapted


def test_the_losses_are_those_worked_out_by_hand() -> None:
    # p = .8, .5, .2; the third row has no label; the rule fires on the first two
    logits = tensor([math.log(4), 0.0, -math.log(4)])
    found = losses(logits, tensor([1.0, 0, 0]), tensor([True, True, False]), tensor([1.0, 1, 0]), 3.0)
    label = (3 * -math.log(0.8) - math.log(0.5)) / 2
    rule = (-math.log(0.8) - math.log(0.5) - math.log(0.8)) / 3
    entropy = -(2 * (0.8 * math.log(0.8) + 0.2 * math.log(0.2)) + math.log(0.5)) / 3
    assert found.label.item() == pytest.approx(label)
    assert found.rule.item() == pytest.approx(rule)
    assert found.entropy.item() == pytest.approx(entropy)
    assert found.total.item() == pytest.approx(0.70 * label + 0.24 * rule + 0.03 * entropy)


def test_the_losses_stay_finite_where_a_logarithm_would_not() -> None:
    logits = tensor([500.0, -500.0], requires_grad=True)
    found = losses(logits, tensor([0.0, 1]), tensor([True, True]), tensor([0.0, 1]), 4.0)
    torch.autograd.backward(found.total)
    assert found.label.item() == pytest.approx((500 + 4 * 500) / 2)
    assert found.entropy.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("share", "weight"),
    [(0.0, 1.0), (0.0999, 1.0), (0.10, 2.0), (0.15, 2.5), (0.20, 3.0), (0.30, 4.0), (0.31, 4.0), (1.0, 4.0)],
)
def test_the_weight_of_frauds_follows_the_published_table(share: float, weight: float) -> None:
    assert pos_weight(share) == pytest.approx(weight)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_frauds_never_weigh_less(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 1 <= pos_weight(low) <= pos_weight(high) <= 4


def test_adam_takes_the_steps_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(30, 4))
    theta, m, v = np.zeros(4), np.zeros(4), np.zeros(4)
    parameter = torch.zeros(4, requires_grad=True)
    adam = Adam({"a": parameter}, 0.003)
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= 0.003 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        parameter.grad = torch.from_numpy(g.astype(np.float32))
        adam.step()
        if t == 15:  # as if it had gone over the wire
            adam = Adam({"a": parameter}, 0.003, adam.state())
    np.testing.assert_allclose(parameter.detach().numpy(), theta, rtol=2e-5)
    assert adam.state()["step"] == 30


def test_five_heals_are_those_of_the_published_script(bundle: Bundle) -> None:
    """The script's own formula on probabilities, one Adam for all heals, beside ours."""
    model = model_of(bundle)
    model.freeze_for_healing()
    adam = Adam(dict(model.reflex.named_parameters()), 0.003)
    adapter = first_adapter(bundle)
    for seed in range(5):
        x, y = drifted(seed)
        rows, truth = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
        rule = torch.from_numpy((x[:, 7] < -1.5).astype(np.float32))
        conflicts = (rule == 1) & (torch.sigmoid(model(rows)) < 0.30)
        fraud_frac = truth[conflicts].mean().item() if conflicts.any() else 0.0
        weight = pos_weight(fraud_frac)
        for _ in range(5):
            p = torch.sigmoid(model(rows))
            entropy = -(p * torch.log(p + 1e-8) + (1 - p) * torch.log(1 - p + 1e-8)).mean()
            loss = (
                LABEL_WEIGHT * ((1 + (weight - 1) * truth) * binary_cross_entropy(p, truth, reduction="none")).mean()
                + RULE_WEIGHT * binary_cross_entropy(p, rule)
                + ENTROPY_WEIGHT * entropy
            )
            torch.autograd.backward(loss)
            adam.step()
        healed = heal(bundle, adapter, x, y)
        adapter = healed.adapter
        assert healed.summary.loss_total == pytest.approx(loss.item(), abs=1e-5)
        assert healed.summary.fraud_frac == pytest.approx(fraud_frac)
        with torch.no_grad():
            np.testing.assert_allclose(probability(bundle, adapter, x)[1], torch.sigmoid(model(rows)), atol=1e-5)


def test_only_the_reflex_has_gradients_while_healing(bundle: Bundle) -> None:
    model = model_of(bundle)
    model.freeze_for_healing()
    torch.autograd.backward(model(torch.randn(8, 10, generator=torch.manual_seed(0))).sum())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, _ in model.named_parameters() if n.startswith("reflex.")
    }
    model.unfreeze_all()
    assert all(p.requires_grad for p in model.parameters())


def test_a_heal_changes_the_reflex_and_its_optimiser_alone(bundle: Bundle) -> None:
    rng = np.random.default_rng(1)
    base = msgspec.structs.replace(
        first_adapter(bundle), shift=rng.normal(size=10).astype(np.float32), logit_shift=-0.5
    )
    weights = {k: v.copy() for k, v in bundle.weights.items()}
    reflex = {k: v.copy() for k, v in base.reflex.items()}
    made = heal(bundle, base, *drifted(0)).adapter
    np.testing.assert_array_equal(made.shift, base.shift)
    assert (made.version, made.parent, made.logit_shift) == ("v1", "v1", -0.5)
    assert made.optim["step"] == 5
    assert all((bundle.weights[k] == v).all() for k, v in weights.items()), "the bundle was written to"
    assert all((base.reflex[k] == v).all() for k, v in reflex.items()), "the base was written to"
    assert any((made.reflex[k] != v).any() for k, v in reflex.items())


def test_alignment_and_correction_of_the_logit_are_part_of_what_is_fitted(bundle: Bundle) -> None:
    x, y = drifted(0)
    plain = first_adapter(bundle)
    moved = msgspec.structs.replace(plain, shift=np.full(10, 0.5, np.float32))
    corrected = msgspec.structs.replace(plain, logit_shift=1.0)
    totals = [heal(bundle, base, x, y).summary.loss_total for base in (plain, moved, corrected)]
    assert len(set(totals)) == 3
    # The network sees the same rows in both; only the rule reads them as they came.
    same = heal(bundle, moved, x + np.float32(0.5), y, 1).summary
    assert same.loss_entropy == pytest.approx(heal(bundle, plain, x, y, 1).summary.loss_entropy, abs=1e-5)


def test_the_same_heal_is_the_same_bytes(bundle: Bundle) -> None:
    def once() -> bytes:
        healed = heal(bundle, first_adapter(bundle), *drifted(4))
        facts = msgspec.structs.asdict(healed.summary)
        return repr(pack(healed.adapter, request="r", stage="post-heal", summary=facts, at="t")).encode()

    assert once() == once()


def over_the_wire(bundle: Bundle, healed: Healed, version: str) -> Adapter:
    """As the healer publishes it and reads it back."""
    named = msgspec.structs.replace(healed.adapter, version=version)
    value, headers = pack(named, request="r", stage="post-heal", summary={}, at="t")
    return unpack(version.encode(), value, {k: v.encode() for k, v in headers.items()}, bundle)


def test_a_rollback_brings_the_optimiser_back_with_the_weights(bundle: Bundle) -> None:
    b = over_the_wire(bundle, heal(bundle, first_adapter(bundle), *drifted(0)), "v3")
    direct = heal(bundle, b, *drifted(2))
    c = over_the_wire(bundle, heal(bundle, b, *drifted(1)), "v5")
    assert c.optim["step"] == 10
    after_rollback = heal(bundle, b, *drifted(2))  # A -> B -> C, back to B, heal again
    assert over_the_wire(bundle, after_rollback, "v7").optim["step"] == 10
    for name, tensors in (("reflex", direct.adapter.reflex), ("optim", direct.adapter.optim)):
        again = getattr(after_rollback.adapter, name)
        assert all(again[k].tobytes() == v.tobytes() for k, v in tensors.items())
    fresh = heal(bundle, msgspec.structs.replace(b, optim={}), *drifted(2))
    assert (fresh.adapter.reflex["reflex.2.bias"] != direct.adapter.reflex["reflex.2.bias"]).any()


def test_rows_without_a_label_leave_the_label_term(bundle: Bundle) -> None:
    x, y = drifted(0)
    some = y.copy()
    some[30:] = -1
    partial = heal(bundle, first_adapter(bundle), x, some).summary
    assert (partial.rows, partial.labelled) == (100, 30)
    short = heal(bundle, first_adapter(bundle), x[:30], y[:30], 1).summary
    one_step = heal(bundle, first_adapter(bundle), x, some, 1).summary
    assert one_step.loss_label == pytest.approx(short.loss_label, rel=1e-5)  # before any update: those 30 rows alone
    assert one_step.accuracy_before == short.accuracy_before


@pytest.mark.parametrize("nothing", [None, np.full(100, -1, np.int8)])
def test_without_labels_the_term_is_absent(bundle: Bundle, nothing: np.ndarray | None) -> None:
    x, _ = drifted(0)
    how = heal(bundle, first_adapter(bundle), x, nothing).summary
    assert (how.labelled, how.fraud_frac, how.pos_weight) == (0, 0.0, 1.0)
    assert (how.loss_label, how.accuracy_before, how.accuracy_after, how.f1_before, how.f1_after) == (None,) * 5
    assert how.loss_total == pytest.approx(0.24 * how.loss_rule + 0.03 * how.loss_entropy)


def test_without_a_rule_its_term_is_absent(bundle: Bundle) -> None:
    ruleless = msgspec.structs.replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, rule=None))
    x, y = drifted(0)
    how = heal(ruleless, first_adapter(ruleless), x, y).summary
    assert (how.loss_rule, how.conflicts) == (None, 0)
    assert how.loss_total == pytest.approx(0.70 * how.loss_label + 0.03 * how.loss_entropy)
    with pytest.raises(Refused, match="nothing to learn from"):
        heal(ruleless, first_adapter(ruleless), x)


@pytest.mark.parametrize(
    ("steps", "lr", "field"),
    [(0, 0.003, "heal_steps"), (1001, 0.003, "heal_steps"), (5, 0.0, "heal_lr"), (5, 2, "heal_lr")],
)
def test_parameters_out_of_range_are_refused_by_name(bundle: Bundle, steps: int, lr: float, field: str) -> None:
    with pytest.raises(Refused) as refused:
        heal(bundle, first_adapter(bundle), *drifted(0), steps, lr)
    assert refused.value.field == f"parameters.{field}"


def test_a_fit_that_runs_off_is_refused(bundle: Bundle) -> None:
    start = first_adapter(bundle)
    wild = msgspec.structs.replace(start, reflex={k: v * np.float32(1e30) for k, v in start.reflex.items()})
    wild.reflex["reflex.2.weight"][:] = np.float32(1e30)
    with pytest.raises(Refused, match="not finite"):
        heal(bundle, wild, *drifted(0))
    with pytest.raises(Refused, match="no rows"):
        heal(bundle, start, np.empty((0, 10), np.float32))


def test_summary_scores_are_the_scorers_own(bundle: Bundle) -> None:
    x, y = drifted(3)
    healed = heal(bundle, first_adapter(bundle), x, y)
    before, after = probability(bundle, healed.adapter, x)  # the first adapter is the shadow
    assert healed.summary.accuracy_before == scores(before, y).accuracy
    assert (healed.summary.accuracy_after, healed.summary.f1_after) == (scores(after, y).accuracy, scores(after, y).f1)
    assert healed.summary.conflicts == int(((x[:, 7] < -1.5) & (before < 0.30)).sum())


def test_a_stream_of_drifted_batches_is_lifted_over_the_shadow(bundle: Bundle) -> None:
    """The published run, one seed, without its rollbacks: accuracy of each batch by the adapter just fitted to it."""
    adapter, lifts = first_adapter(bundle), []
    for k in range(25):
        x, y = drifted(1000 + k)
        adapter = heal(bundle, adapter, x, y).adapter
        shadow, healed = (scores(p, y).accuracy for p in probability(bundle, adapter, x))
        lifts.append(healed - shadow)
    assert np.mean(lifts) > 0.15
    assert sum(lift > 0 for lift in lifts) >= 22
