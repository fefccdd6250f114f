"""Learning from labels: the same request gives the same bytes, within a trust region, on labels nobody chose."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from healer.compare import compare
from healer.guarded import learned
from healer.learn import LABELLED_MIN, learn
from healer.reference import Labels
from healer.rows import Entry
from healer.trust import RADIUS, RADIUS_ROWS, RULE_WEIGHT, rule_trust
from monitor.evidence import Tally, counted, log_evidence
from producer.scenarios import SCENARIOS
from selfheal.gauntlet.world import arrivals
from shared.adapters import Adapter, first_adapter
from shared.alignment import align, alignment_of, identity
from shared.bundle import Bundle, Rule, Thresholds
from shared.errors import Refused
from shared.forward import Network
from shared.profile import frozen_logit
from shared.records import HealRequest, OffsetRange


def entries_of(bundle: Bundle, name: str, first: int, count: int) -> list[Entry]:
    """Batches first, first + 1, .. of a scenario, wholly labelled."""
    logit = frozen_logit(Network.of(bundle))
    stream = list(arrivals(SCENARIOS[name], 3, logit, first + count - 1))[first - 1 :]
    return [Entry(a.x, np.asarray(a.y, np.int8), np.full(len(a.y), False)) for a in stream]


def request_for(entries: list[Entry], **more: object) -> HealRequest:
    where = OffsetRange(topic="transactions", partition=0, start=0, end=1)
    fields: dict[str, Any] = {
        "request_id": "learn-1", "policy": "guarded", "reason": "labels", "base_version": "v1", "bundle": "b",
        "batch_id": "b", "at": "t", "transactions": [where] * len(entries), "purpose": "learn", "fresh": 1, **more,
    }  # fmt: skip
    return HealRequest(**fields)


def taught(bundle: Bundle, name: str, lessons: int, base: Adapter | None = None) -> Adapter:
    """The candidate after so many lessons of one fresh batch and ten replayed ones."""
    stream = entries_of(bundle, name, 11, lessons)
    candidate = active = base or first_adapter(bundle)
    for k in range(lessons):
        entries = stream[max(k - 10, 0) : k + 1]
        outcome = learned(bundle, request_for(entries, request_id=f"l{k}"), entries, candidate, active, f"v{k + 2}")
        assert outcome.adapter is not None
        candidate = outcome.adapter
    return candidate


def test_the_same_request_gives_the_same_bytes_and_another_one_others(bundle: Bundle) -> None:
    entries, first = entries_of(bundle, "S9", 11, 3), first_adapter(bundle)
    one, two = (learned(bundle, request_for(entries), entries, first, first, "v2") for _ in range(2))
    other = learned(bundle, request_for(entries, request_id="learn-2"), entries, first, first, "v2")
    weights = [
        b"".join(v.tobytes() for v in [*o.adapter.reflex.values(), *o.adapter.optim.values()])
        for o in (one, two, other)
        if o.adapter is not None
    ]
    assert weights[0] == weights[1] != weights[2]
    assert one.facts == two.facts
    assert (one.kind, one.stage, one.facts["steps"]) == ("heal-finished", "candidate", 20)


def test_a_new_mechanism_is_learned_and_the_evidence_says_so(bundle: Bundle) -> None:
    learner, first = taught(bundle, "S9", 20), first_adapter(bundle)
    rest = entries_of(bundle, "S9", 31, 10)
    x, y = np.concatenate([e.x for e in rest]), np.concatenate([e.labels for e in rest])
    found = compare(bundle, learner, first, x, y)
    assert found.log_loss_base < 0.5 * found.log_loss_active
    assert log_evidence(Tally(**found.tally), bundle.manifest.costs) > np.log(20)


def test_base_and_active_are_compared_before_the_base_learns(bundle: Bundle) -> None:
    entries, first = entries_of(bundle, "S9", 11, 2), first_adapter(bundle)
    facts = learned(bundle, request_for(entries, fresh=2), entries, first, first, "v2").facts
    assert set(facts["tally"].values()) == {0}
    assert facts["log_loss_base"] == facts["log_loss_active"] > 0


def test_the_tally_is_the_monitors(bundle: Bundle) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((500, 10)).astype(np.float32), (rng.random(500) < 0.3).astype(np.int8)
    first = first_adapter(bundle)
    other = msgspec.structs.replace(first, logit_shift=2.0)
    found = compare(bundle, other, first, x, y)
    logit, cut = frozen_logit(Network.of(bundle))(x), -np.log(5)
    assert Tally(**found.tally) == counted(Tally(), logit + 2 > cut, logit > cut, y)
    assert found.rows == 500
    assert found.right_base == int(((logit + 2 > 0) == (y == 1)).sum()), "at the flag threshold, .5"
    assert found.right_active == int(((logit > 0) == (y == 1)).sum())
    budget = msgspec.structs.replace(
        bundle.manifest, alerts_per_1000=10.0, thresholds=Thresholds(flag=0.9, conflict=0.3)
    )
    strict = compare(msgspec.structs.replace(bundle, manifest=budget), other, first, x, y)
    assert Tally(**strict.tally) == counted(Tally(), logit + 2 > np.log(9), logit > np.log(9), y)


def test_labels_of_flagged_rows_only_are_left_out(bundle: Bundle) -> None:
    whole = entries_of(bundle, "S9", 11, 3)
    flagged = np.arange(100) < 20
    biased = whole[-1]._replace(labels=np.where(flagged, whole[-1].labels, -1).astype(np.int8))
    audited = biased._replace(audit=np.arange(100) < 2)
    first = first_adapter(bundle)
    for entry, counted_rows in ((biased, 0), (audited, 2)):
        entries = [*whole[:2], entry]
        facts = learned(bundle, request_for(entries), entries, first, first, "v2").facts
        assert (facts["labelled"], facts["fresh_labelled"]) == (200, counted_rows)
        assert facts["labels_left_out"] == 20 - counted_rows


@pytest.mark.parametrize("rows", [0, LABELLED_MIN - 1])
def test_too_few_labels_are_refused_by_name(bundle: Bundle, rows: int) -> None:
    entry = entries_of(bundle, "S9", 11, 1)[0]
    few = entry._replace(x=entry.x[:rows], labels=entry.labels[:rows], audit=entry.audit[:rows])
    entries = [few] if rows else [entry._replace(labels=np.full(100, -1, np.int8))]
    first = first_adapter(bundle)
    with pytest.raises(Refused, match=r"^too-few-labels: "):
        learned(bundle, request_for(entries), entries, first, first, "v2")


def test_fifty_labels_do_no_harm(bundle: Bundle) -> None:
    """Learned on an undrifted stream, from as few labels as are ever taken: no dearer on 3,000 fresh rows."""
    few, first = entries_of(bundle, "S0", 11, 1)[0], first_adapter(bundle)
    half = few._replace(x=few.x[:50], labels=few.labels[:50], audit=few.audit[:50])
    outcome = learned(bundle, request_for([half]), [half], first, first, "v2")
    rest = entries_of(bundle, "S0", 12, 30)
    x, y = np.concatenate([e.x for e in rest]), np.concatenate([e.labels for e in rest])
    assert outcome.adapter is not None
    found = compare(bundle, outcome.adapter, first, x, y)
    assert found.log_loss_base < 1.02 * found.log_loss_active
    costs, t = bundle.manifest.costs, found.tally
    dearer = costs.missed_fraud * (t["lost_fraud"] - t["won_fraud"])
    dearer += costs.false_alarm * (t["lost_normal"] - t["won_normal"])
    assert dearer / found.rows < 0.01


def test_weights_stay_within_the_trust_region(bundle: Bundle) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((300, 10)).astype(np.float32), (rng.random(300) < 0.5).astype(np.int8)
    made = learn(bundle, first_adapter(bundle), 50 * x, y, fresh=11, rule_weight=0.0, seed="far")
    far = np.sqrt(sum(float(((v - bundle.weights[k]) ** 2).sum()) for k, v in made.adapter.reflex.items()))
    assert made.steps == 200
    assert far == pytest.approx(made.distance, rel=1e-4)
    assert far <= RADIUS * 300 / RADIUS_ROWS * (1 + 1e-6)


def test_alignment_and_order_stay_the_base_s_and_are_read_through(bundle: Bundle) -> None:
    """The same rows fed in another order and unit teach the same reflex."""
    rate = float(bundle.reference_y.mean())
    order = (1, 0, *range(2, 10))
    moved = identity(10, rate)
    moved = msgspec.structs.replace(moved, scale=(2.0,) * 10, order=order)
    first = first_adapter(bundle)
    base = align(first, moved, rate)
    entry = entries_of(bundle, "S9", 11, 1)[0]
    fed = np.empty_like(entry.x)
    fed[:, list(order)] = 2 * entry.x
    plain, aligned = (
        learn(bundle, b, x, entry.labels, fresh=1, rule_weight=0.1, seed="same").adapter
        for b, x in ((first, entry.x), (base, fed))
    )
    assert all(np.array_equal(plain.reflex[k], aligned.reflex[k]) for k in plain.reflex)
    assert alignment_of(aligned, rate) == moved


def labels_by_rule(bundle: Bundle, precision: float) -> tuple[np.ndarray, Labels]:
    x = bundle.reference_x[:2_000]
    named = bundle.rule_says_fraud(x)
    rng = np.random.default_rng(2)
    return x, np.where(named, rng.random(len(x)) < precision, rng.random(len(x)) < 0.1).astype(np.int8)


def test_a_rule_is_believed_as_far_as_it_is_right(bundle: Bundle) -> None:
    clean = rule_trust(bundle, bundle.reference_x, bundle.reference_y)
    assert clean.weight == pytest.approx(RULE_WEIGHT)
    half = rule_trust(bundle, *labels_by_rule(bundle, 0.4))
    assert 0 < half.weight < clean.weight
    assert rule_trust(bundle, *labels_by_rule(bundle, 0.05)).weight == 0


def test_an_inverted_rule_cannot_poison_a_heal(bundle: Bundle) -> None:
    rule = bundle.manifest.rule
    assert rule is not None
    manifest = msgspec.structs.replace(
        bundle.manifest, rule=Rule(feature=rule.feature, op=">", threshold=rule.threshold)
    )
    inverted = msgspec.structs.replace(bundle, manifest=manifest)
    entries, first = entries_of(bundle, "S9", 11, 3), first_adapter(bundle)
    facts = learned(inverted, request_for(entries), entries, first, first, "v2").facts
    assert facts["rule_weight"] == 0
    assert facts["rule_precision"] < 0.3
