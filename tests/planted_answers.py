"""Faults in what scorers publish: answers, contents, probabilities, conflicts, versions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from audit_kit import Pipe
from planting import Plants, planting
from safetensors.numpy import load

PLANTS: Plants = {}
plant = planting(PLANTS)


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
