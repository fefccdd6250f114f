"""Each rule of the auditor on topics made by hand: green as they are, red by its name for every planted fault."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_kit import D, Pipe, adapter_bytes, make_pipe, publish
from safetensors.numpy import load, save

import audit
from audit.report import RULES

Plant = Callable[[Pipe], None]
PLANTS: dict[str, tuple[str, Plant]] = {}


def plant(rule: str) -> Callable[[Plant], Plant]:
    """Names the rule that must turn red."""

    def keep(fault: Plant) -> Plant:
        PLANTS[fault.__name__] = rule, fault
        return fault

    return keep


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return make_pipe(tmp_path)


def audited(pipe: Pipe, **options: Any) -> audit.Report:
    return audit.audit(pipe, pipe.bundle, **options)


def test_green_as_made_and_every_rule_has_checked_something(pipe: Pipe) -> None:
    report = audited(pipe, complete=True)
    assert report.ok, report.lines()
    assert {rule for rule, f in report.findings.items() if f.checked} == set(RULES)
    assert report.counts == {"rows computed again": 120}
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


@pytest.mark.parametrize(
    ("fault", "lost", "doubled"),
    [("a_prediction_lost", 1, 0), ("a_dead_letter_twice", 0, 1), ("a_prediction_and_a_dead_letter", 0, 1)],
)
def test_what_is_lost_and_what_is_doubled_is_counted(pipe: Pipe, fault: str, lost: int, doubled: int) -> None:
    before = audited(pipe)
    assert (before.lost, before.doubled) == (0, 0)
    assert before.inputs == len(pipe.records["transactions"])
    PLANTS[fault][1](pipe)
    after = audited(pipe)
    assert after.as_dict()["inputs"] == {"read": before.inputs, "lost": lost, "doubled": doubled}


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _ in PLANTS.values()} == set(RULES)


@plant("answers")
def a_prediction_lost(pipe: Pipe) -> None:
    pipe.drop("predictions", 1)


@plant("answers")
def a_prediction_twice(pipe: Pipe) -> None:
    pipe.repeat("predictions", 2)


@plant("answers")
def a_dead_letter_lost(pipe: Pipe) -> None:
    pipe.drop("dead-letters", 0)


@plant("answers")
def a_dead_letter_twice(pipe: Pipe) -> None:
    pipe.repeat("dead-letters", 0)


@plant("answers")
def a_prediction_and_a_dead_letter(pipe: Pipe) -> None:
    _letter_for(pipe, 1)


@plant("answers")
def a_prediction_of_nothing(pipe: Pipe) -> None:
    pipe.repeat("predictions", 0)
    pipe.edit("predictions", -1, lambda b: b["source"].update(offset=1))


@plant("contents")
def a_valid_batch_made_a_dead_letter(pipe: Pipe) -> None:
    pipe.drop("predictions", 0)
    _letter_for(pipe, 1)


@plant("contents")
def an_invalid_batch_predicted(pipe: Pipe) -> None:
    pipe.edit("transactions", 1, lambda b: b["features"][3].append(1.0))


@plant("contents")
def dead_letter_bytes_changed(pipe: Pipe) -> None:
    letter = pipe.records["dead-letters"][0]
    pipe.records["dead-letters"][0] = letter._replace(value=b"no JSON at al")


@plant("contents")
def ids_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: b["transaction_ids"].__setitem__(4, "other"))


@plant("contents")
def rows_lost(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: [b[k].pop() for k in _COLUMNS])


@plant("contents")
def batch_id_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: b.update(batch_id="b9"))


@plant("contents")
def created_at_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: b.update(created_at="2027"))


@plant("contents")
def usable_labels_made_a_dead_letter(pipe: Pipe) -> None:
    _letter_for(pipe, 2, "labels")


@plant("contents")
def unusable_labels_passed_over(pipe: Pipe) -> None:
    pipe.add("labels", "b1", {"batch_id": "b1", "transaction_ids": ["x"], "labels": [2]})


@plant("probabilities")
def a_probability_changed_by_little(pipe: Pipe) -> None:
    pipe.edit("predictions", 4, lambda b: _nudge(b, "probability", 3e-6))


@plant("probabilities")
def a_shadow_probability_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 1, lambda b: _nudge(b, "shadow_probability", 2e-5))


@plant("probabilities")
def another_adapter_than_named(pipe: Pipe) -> None:
    pipe.edit("predictions", 5, lambda b: b.update(adapter_version="v2"))


@plant("probabilities")
def half_a_batch_by_another_adapter(pipe: Pipe) -> None:
    pipe.edit("predictions", 5, lambda b: b["probability"].__setitem__(slice(5), b["shadow_probability"][:5]))


@plant("probabilities")
def another_bundle(pipe: Pipe) -> None:
    pipe.edit("predictions", 2, lambda b: b.update(bundle="0" * 64))


@plant("derived")
def a_flag_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: b["flag"].__setitem__(0, 1 - b["flag"][0]))


@plant("derived")
def a_rule_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: b["rule"].__setitem__(0, 1 - b["rule"][0]))


@plant("derived")
def a_sum_changed(pipe: Pipe) -> None:
    pipe.edit("predictions", 0, lambda b: _nudge(b, "feature_sums", 1e-6))


@plant("derived")
def conflicts_lost(pipe: Pipe) -> None:
    pipe.drop("conflicts", 0)


@plant("derived")
def conflicts_twice(pipe: Pipe) -> None:
    pipe.repeat("conflicts", 0)


@plant("derived")
def a_conflicts_row_changed(pipe: Pipe) -> None:
    pipe.edit("conflicts", 0, lambda b: b["features"][0].__setitem__(1, 0.25))


@plant("versions")
def a_version_never_active(pipe: Pipe) -> None:
    """The pre-heal copy, with its own probabilities."""
    _by(pipe, 5, "v4")


@plant("versions")
def a_version_before_its_control_record(pipe: Pipe) -> None:
    early = pipe.records["predictions"][3]
    pipe.records["predictions"][3] = early._replace(at_ms=early.at_ms - 5_000)


@plant("versions")
def back_to_what_was_in_force_before(pipe: Pipe) -> None:
    """By v1 after v3 was served, with one scorer alone, and with its real probabilities."""
    _by(pipe, 5, "v1")


@plant("versions")
def not_the_version_that_the_input_names(pipe: Pipe) -> None:
    record = pipe.records["transactions"][2]
    pipe.records["transactions"][2] = record._replace(headers={"adapter": b"v3"})


@plant("versions")
def a_candidate_nobody_named(pipe: Pipe) -> None:
    pipe.edit(
        "predictions", 5, lambda b: b.update(candidate_version="v3", candidate_probability=list(b["probability"]))
    )


@plant("adapters")
def an_adapter_with_one_bit_turned(pipe: Pipe) -> None:
    record = pipe.records["adapters"][1]
    value = bytearray(record.value or b"")
    value[-1] ^= 1
    pipe.records["adapters"][1] = record._replace(value=bytes(value))


@plant("adapters")
def an_adapter_without_its_parent(pipe: Pipe) -> None:
    publish(pipe, "v9", "v8", "nobody")


@plant("adapters")
def an_adapter_of_another_bundle(pipe: Pipe) -> None:
    publish(pipe, "v9", "v3", "nobody", bundle="f" * 64)


@plant("adapters")
def an_adapter_that_is_not_a_number(pipe: Pipe) -> None:
    _tampered(pipe, lambda t: t["reflex.0.bias"].__setitem__(0, np.nan))


@plant("adapters")
def an_adapter_of_another_shape(pipe: Pipe) -> None:
    _tampered(pipe, lambda t: t.update({"align.shift": np.zeros(D + 1, np.float32)}))


@plant("adapters")
def an_adapter_published_twice_with_other_bytes(pipe: Pipe) -> None:
    value = adapter_bytes(pipe.bundle, "v7")
    headers = {"version": "v3", "parent": "v2", "bundle": pipe.bundle.hash, "sha256": hashlib.sha256(value).hexdigest()}
    pipe.add("adapters", "v3", value, headers)


@plant("outcomes")
def an_outcome_lost(pipe: Pipe) -> None:
    pipe.drop("events", pipe.find("events", kind="heal-finished"))


@plant("outcomes")
def an_outcome_twice(pipe: Pipe) -> None:
    pipe.repeat("events", pipe.find("events", kind="heal-finished"))


@plant("outcomes")
def an_outcome_of_nothing(pipe: Pipe) -> None:
    pipe.say("heal-failed", "healer", request_id="heal-99", reason="rows-gone")


@plant("outcomes")
def an_outcome_without_its_adapter(pipe: Pipe) -> None:
    pipe.drop("adapters", 3)


@plant("outcomes")
def an_adapter_without_its_outcome(pipe: Pipe) -> None:
    publish(pipe, "v6", "v5", "heal-5")


@plant("offsets")
def committed_beyond_the_end(pipe: Pipe) -> None:
    pipe.groups["healer", "heal-requests"] = 1_000


@plant("offsets")
def retention_overtook_the_scorer(pipe: Pipe) -> None:
    pipe.lows["transactions"] = 4
    pipe.groups["scorer", "transactions"] = 2


@plant("metrics")
def a_row_lost(pipe: Pipe) -> None:
    for _ in range(2):
        pipe.drop("metrics", pipe.find("metrics", batch_id="b2"))


@plant("metrics")
def a_score_changed(pipe: Pipe) -> None:
    pipe.edit("metrics", 3, lambda b: b.update(f1_healed=b["f1_healed"] + 0.01))


@plant("metrics")
def a_lift_changed(pipe: Pipe) -> None:
    pipe.edit("metrics", 3, lambda b: b.update(acc_lift=b["acc_lift"] + 0.1))


@plant("metrics")
def a_cost_changed(pipe: Pipe) -> None:
    pipe.edit("metrics", 3, lambda b: b.update(cost_healed=0.0))


@plant("metrics")
def a_z_score_changed(pipe: Pipe) -> None:
    for i in (6, 7):
        pipe.edit("metrics", i, lambda b: b.update(z_score=b["z_score"] + 0.001))


@plant("metrics")
def a_flagged_share_changed(pipe: Pipe) -> None:
    pipe.edit("metrics", 0, lambda b: b.update(flagged_share=b["flagged_share"] + 0.1))


@plant("metrics")
def a_post_heal_score_changed(pipe: Pipe) -> None:
    i = pipe.find("metrics", action="heal")
    pipe.edit("metrics", i, lambda b: b.update(f1_post_heal=0.99))


@plant("metrics")
def two_batches_of_one_number(pipe: Pipe) -> None:
    for i in (2, 3):
        pipe.edit("metrics", i, lambda b: b.update(batch_idx=1))


@plant("metrics")
def a_row_of_nothing(pipe: Pipe) -> None:
    pipe.repeat("metrics", 11)
    pipe.edit("metrics", -1, lambda b: b.update(batch_id="b7", batch_idx=7))


@plant("metrics")
def scores_before_the_labels_came(pipe: Pipe) -> None:
    pipe.drop("labels", 1)


@plant("metrics")
def a_row_of_what_was_not_committed_yet(pipe: Pipe) -> None:
    for i in (6, 7):
        pipe.records["metrics"][i] = pipe.records["metrics"][i]._replace(at_ms=1_000)


@plant("outcomes")
def an_outcome_of_what_was_not_committed_yet(pipe: Pipe) -> None:
    i = pipe.find("events", kind="heal-finished")
    pipe.records["events"][i] = pipe.records["events"][i]._replace(at_ms=1_000)


@plant("contents")
def junk_among_the_events_passed_over(pipe: Pipe) -> None:
    pipe.add("events", "x", b"junk")


@plant("causes")
def an_activation_without_control(pipe: Pipe) -> None:
    pipe.say("adapter-activated", "monitor", version="v2", request_id="heal-3", batch_id="b6", batch_idx=6)


@plant("causes")
def a_control_record_without_event(pipe: Pipe) -> None:
    _activate(pipe, "v4", "v3")


@plant("causes")
def an_activation_without_a_heal(pipe: Pipe) -> None:
    _activate(pipe, "v4", "v3")
    pipe.say("adapter-activated", "monitor", version="v4", previous="v3")


@plant("causes")
def an_activation_of_another_version_than_healed(pipe: Pipe) -> None:
    _activate(pipe, "v4", "v3")
    pipe.say("adapter-activated", "monitor", version="v4", previous="v3", request_id="heal-5")


@plant("causes")
def a_rollback_without_a_fall(pipe: Pipe) -> None:
    i = pipe.find("events", kind="rolled-back")
    pipe.edit("events", i, lambda b: b.update(mean_f1=0.94, mean_accuracy=0.94))


@plant("causes")
def a_rollback_by_scores_that_no_row_has(pipe: Pipe) -> None:
    i = pipe.find("events", kind="rolled-back")
    pipe.edit("events", i, lambda b: b.update(mean_f1=-0.5))


@plant("causes")
def a_rollback_for_a_refusal_that_no_scorer_said(pipe: Pipe) -> None:
    _activate(pipe, "v1", "v3")
    pipe.say("rolled-back", "monitor", from_version="v3", to_version="v1", reason="bad bytes")


@plant("causes")
def a_row_says_heal_and_no_event_does(pipe: Pipe) -> None:
    pipe.edit("metrics", 11, lambda b: b.update(action="heal"))


@plant("causes")
def a_heal_asked_below_every_threshold(pipe: Pipe) -> None:
    i = pipe.find("control", setting="thresholds")
    pipe.edit("control", i, lambda b: b["values"].update(conflict_min=99))


@plant("causes")
def a_heal_asked_with_the_rows_of_another_batch(pipe: Pipe) -> None:
    pipe.edit("heal-requests", 0, lambda b: b["transactions"][0].update(start=2, end=3))


@plant("causes")
def a_heal_asked_with_the_labels_of_another_batch(pipe: Pipe) -> None:
    pipe.edit("heal-requests", 1, lambda b: b["labels"][0].update(start=2, end=3))


@plant("causes")
def a_heal_asked_without_its_labels(pipe: Pipe) -> None:
    pipe.edit("heal-requests", 1, lambda b: b.update(labels=[]))


@plant("causes")
def somebody_else_activates(pipe: Pipe) -> None:
    pipe.edit("control", -1, lambda b: b.update(by="somebody"))


@plant("causes")
def a_next_version_never_active(pipe: Pipe) -> None:
    pipe.edit("metrics", 11, lambda b: b.update(next_version="v2"))


@plant("once")
def active_twice_in_a_row(pipe: Pipe) -> None:
    pipe.repeat("control", len(pipe.records["control"]) - 1)


@plant("once")
def a_decision_said_twice(pipe: Pipe) -> None:
    pipe.repeat("events", pipe.find("events", kind="adapter-activated"))


@plant("once")
def a_heal_asked_twice(pipe: Pipe) -> None:
    pipe.repeat("heal-requests", 0)


@plant("state")
def a_state_behind_the_rows(pipe: Pipe) -> None:
    pipe.edit("state", 5, lambda b: b.update(batches=5))


@plant("state")
def a_state_of_another_version(pipe: Pipe) -> None:
    pipe.edit("state", 5, lambda b: b.update(active="v5"))


@plant("state")
def a_state_written_again_from_before(pipe: Pipe) -> None:
    pipe.repeat("state", 4)


_COLUMNS = ("transaction_ids", "probability", "shadow_probability", "rule", "flag")


def _letter_for(pipe: Pipe, i: int, name: Any = "transactions") -> None:
    of = pipe.records[name][i]
    source = {"source.topic": of.topic, "source.partition": "0", "source.offset": str(of.offset)}
    pipe.add("dead-letters", of.where, of.value, {**source, "reason": "made up", "service": "scorer"})


def _nudge(body: dict[str, Any], name: str, by: float) -> None:
    body[name][2] += by if body[name][2] < 0.5 else -by


def _by(pipe: Pipe, i: int, version: str) -> None:
    """The i-th prediction as that version would have made it; only the version is wrong."""
    from audit.network import Adapter, first_adapter, probabilities

    record = next((r for r in pipe.records["adapters"] if r.key == version.encode()), None)
    adapter = first_adapter(pipe.bundle) if record is None else Adapter(version, load(record.value or b""))
    body = json.loads(pipe.records["predictions"][i].value or b"")
    batch = json.loads(pipe.records["transactions"][i + 1].value or b"")
    x = np.array(batch["features"], np.float32)
    p = probabilities(x, pipe.bundle, [adapter])[1].astype(np.float32).astype(np.float64)
    pipe.edit("predictions", i, lambda b: b.update(adapter_version=version, probability=p.tolist()))
    assert body["adapter_version"] != version


def _tampered(pipe: Pipe, change: Callable[[dict[str, Any]], object]) -> None:
    """An adapter whose checksum is right and whose numbers are not."""
    tensors = load(adapter_bytes(pipe.bundle, "v9"))
    change(tensors)
    value = save(tensors)
    headers = {"version": "v9", "parent": "v3", "bundle": pipe.bundle.hash, "sha256": hashlib.sha256(value).hexdigest()}
    pipe.add("adapters", "v9", value, headers)


def _activate(pipe: Pipe, version: str, previous: str) -> None:
    body = {"setting": "active", "at": "t", "by": "monitor", "reason": "", "version": version, "previous": previous}
    pipe.add("control", "active", body)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_turns_its_rule_red(pipe: Pipe, name: str) -> None:
    rule, fault = PLANTS[name]
    fault(pipe)
    report = audited(pipe)
    assert rule in report.broken(), report.lines()
    where, why = report.findings[rule].first[0]
    assert where.startswith("shop.")
    assert why
