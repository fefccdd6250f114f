"""Faults in what healer and monitor publish: adapters, outcomes, offsets, metrics, causes, state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from audit_kit import D, Pipe, adapter_bytes, publish
from planting import Plants, planting
from safetensors.numpy import load, save

PLANTS: Plants = {}
plant = planting(PLANTS)


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
