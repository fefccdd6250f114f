"""What is no offence: the auditor must not cry where the contract allows it. And its own reading of the contract is
held against the services' on hostile bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_kit import D, Pipe, make_pipe, publish

import audit
from audit import contract
from audit.network import first_adapter, probabilities
from scorer.decode import slow
from shared.errors import Refused
from shared.records import Labels, check_labels, decode


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return make_pipe(tmp_path)


def audited(pipe: Pipe, **options: Any) -> audit.Report:
    return audit.audit(pipe, pipe.bundle, **options)


def test_inputs_beyond_the_groups_offsets_are_counted_and_asked_for_with_complete(pipe: Pipe) -> None:
    last = pipe.records["transactions"][-1].offset
    more = pipe.add("transactions", "b7", {"batch_id": "b7"})
    pipe.groups["scorer", "transactions"] = last + 1
    report = audited(pipe)
    assert report.ok, report.lines()
    assert report.counts["inputs not yet scored"] == 1
    report = audited(pipe, complete=True)
    assert report.broken() == ["answers", "offsets"]
    assert report.findings["answers"].first == [(more.where, "not scored (--complete)")]


def test_what_retention_took_is_not_held_against_its_answers(pipe: Pipe) -> None:
    del pipe.records["transactions"][:3]
    pipe.lows["transactions"] = pipe.records["transactions"][0].offset
    report = audited(pipe)
    assert report.ok, report.lines()
    assert report.counts["answers whose input retention has taken"] == 3
    assert any("retention" in note for note in report.notes)


def test_a_prediction_may_follow_control_late_but_not_for_ever(pipe: Pipe) -> None:
    """b4 was still scored by v1, 400 ms after v3 was activated."""
    x = np.array(json.loads(pipe.records["transactions"][4].value or b"")["features"], np.float32)
    shadow, _ = probabilities(x, pipe.bundle, [first_adapter(pipe.bundle)])
    pipe.edit("predictions", 3, lambda b: b.update(adapter_version="v1", probability=shadow.tolist()))
    assert "versions" not in audited(pipe).broken()
    assert "versions" in audited(pipe, lag_s=0.1).broken()


def test_a_pinned_version_is_in_force(pipe: Pipe) -> None:
    body = {"setting": "pin", "at": "t", "by": "ann", "reason": "", "version": "v1"}
    first = pipe.records["predictions"][5].at_ms
    pinned = pipe.add("control", "pin", body)
    pipe.records["control"][-1] = pinned._replace(at_ms=first - 50)
    x = np.array(json.loads(pipe.records["transactions"][6].value or b"")["features"], np.float32)
    shadow, _ = probabilities(x, pipe.bundle, [first_adapter(pipe.bundle)])
    pipe.edit("predictions", 5, lambda b: b.update(adapter_version="v1", probability=shadow.tolist()))
    assert "versions" not in audited(pipe).broken()
    pipe.drop("control", len(pipe.records["control"]) - 1)
    assert "versions" in audited(pipe).broken()


@pytest.mark.parametrize("published_s_before", [None, 5, 500])
def test_a_batch_whose_adapter_did_not_come_may_be_a_dead_letter(pipe: Pipe, published_s_before: int | None) -> None:
    batch = {"batch_id": "b7", "transaction_ids": ["x"], "features": [[0.0] * D], "created_at": "2026"}
    asked = pipe.add("transactions", "b7", batch, {"adapter": "v6"})
    source = {"source.topic": asked.topic, "source.partition": "0", "source.offset": str(asked.offset)}
    said = {**source, "reason": "not published, or not in time", "field": "header:adapter", "service": "scorer"}
    letter = pipe.add("dead-letters", asked.where, asked.value, said)
    if published_s_before is not None:
        publish(pipe, "v6", "v5", "a-person")
        made = pipe.records["adapters"][-1]
        pipe.records["adapters"][-1] = made._replace(at_ms=letter.at_ms - 1000 * published_s_before)
    assert ("contents" in audited(pipe).broken()) == (published_s_before == 500)


def test_a_strangers_bad_adapter_that_scorers_refused_does_no_harm(pipe: Pipe) -> None:
    publish(pipe, "v9", "v3", "nobody", sha256="0" * 64)
    record = pipe.records["adapters"][-1]
    assert audited(pipe).broken() == ["adapters"]
    pipe.say("adapter-rejected", "scorer", version="v9", record=record.where, reason="sha256")
    report = audited(pipe)
    assert report.ok, report.lines()
    assert report.counts["bad adapters of strangers, refused by scorers"] == 1


def test_a_strangers_control_record_that_scorers_refused_changes_nothing(pipe: Pipe) -> None:
    body = {"setting": "active", "at": "t", "by": "mallory", "reason": "", "version": "v1", "previous": "v3"}
    order = pipe.add("control", "active", body)
    assert {"causes", "state"} <= set(audited(pipe).broken())
    pipe.say("record-refused", "scorer", record=order.where, reason="not signed")
    report = audited(pipe)
    assert report.ok, report.lines()
    assert report.counts["control records that scorers refused"] == 1


def test_thinning_leaves_out_what_its_rule_says_and_nothing_else(pipe: Pipe) -> None:
    from audit.measures import is_read

    seed = next(s for s in range(1_000) if not is_read(b"b6", s, 0.5) and is_read(b"b2", s, 0.5))
    pipe.say("thinning-changed", "monitor", share=0.5, previous=1.0, lag=30_000, seed=seed)
    for _ in range(2):
        pipe.drop("metrics", pipe.find("metrics", batch_id="b6"))
    pipe.drop("state", 5)
    report = audited(pipe)
    assert report.ok, report.lines()
    assert report.counts["predictions left out by thinning"] == 1
    for _ in range(2):
        pipe.drop("metrics", pipe.find("metrics", batch_id="b2"))
    assert "metrics" in audited(pipe).broken()


def test_events_kinds_and_columns_of_a_later_version_are_passed_over(pipe: Pipe) -> None:
    pipe.say("something-new", "monitor", request_id="x-1", version=3)
    pipe.edit("metrics", 3, lambda b: b.update(new_column=1))
    pipe.edit("predictions", 3, lambda b: b.update(new_field=[]))
    report = audited(pipe)
    assert report.ok, report.lines()


def test_sampling_computes_fewer_rows_and_still_sees_a_batch_by_another_adapter(pipe: Pipe) -> None:
    report = audited(pipe, sample=2)
    assert report.counts["rows computed again"] == 12
    pipe.edit("predictions", 5, lambda b: b.update(adapter_version="v2"))
    assert "probabilities" in audited(pipe, sample=2).broken()


def test_without_bundle_or_broker_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(audit.CannotAudit, match=r"no bundle at .*none"):
        audit.run({"bootstrap.servers": "127.0.0.1:1"}, "p", tmp_path / "none")
    make_pipe(tmp_path)
    with pytest.raises(audit.CannotAudit, match=r"no Kafka answers at 127.0.0.1:1"):
        audit.run({"bootstrap.servers": "127.0.0.1:1"}, "p", tmp_path, budget_s=1)


def good(rng: random.Random) -> dict[str, Any]:
    return {
        "batch_id": "b", "transaction_ids": ["s", "t"], "created_at": "x",
        "features": [[rng.gauss(0, 1) for _ in range(D)] for _ in range(2)],
    }  # fmt: skip


VALUES: list[Any] = [
    None, True, 0, -0.0, 1.5, 10**30, 1e39, -1e300, "", "x", "y" * 200, "z" * 201, "\u0000", "\U0001f600" * 200, [], {},
    [None], [1], ["a"], ["a", "a"], [1.0, True], [[0.0] * D], [[0.0] * D, [0.0] * (D - 1)], [[0] * D, [2] * D],
    ["a"] * 1_001, [str(i) for i in range(1_000)], [0.0, 1.0], [1e39, 0.0],
]  # fmt: skip
RAW = [
    b"", b"{", b"[]", b"null", b"\xff{}", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":1}{"b":2}', b"[" * 5_000, b" {} ",
    b'{"batch_id":"\\ud800"}', b'{"batch_id":"b","batch_id":3}',
]  # fmt: skip


def hostile(rng: random.Random) -> bytes:
    body = good(rng)
    for _ in range(rng.randrange(3)):
        field = rng.choice([*body, "amounts", "other"])
        if rng.random() < 0.3:
            body.pop(field, None)
        else:
            body[field] = rng.choice(VALUES)
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5)
    match rng.randrange(12):
        case 0:
            text = text.replace("0.", "NaN0.", 1)
        case 1:
            text = text[: rng.randrange(len(text))]
        case 2:
            text = text.replace("}", ', "features": [[1,2,3],[4,5,6]]}')
        case 3:
            text = text.replace("0.", "1e999, 0.", 1)
    return text.encode("utf-8", "surrogatepass")


def test_the_auditor_and_the_scorer_agree_on_what_a_valid_batch_is() -> None:
    rng, verdicts = random.Random(5), {True: 0, False: 0}
    for value in [None, *RAW, *(hostile(rng) for _ in range(4_000))]:
        try:
            theirs = slow(value, D)
        except Refused:
            theirs = None
        try:
            ours = contract.batch(value, D)
        except contract.Invalid:
            ours = None
        assert (theirs is None) == (ours is None) or (theirs is None and contract.names_twice(value)), value
        if theirs is not None and ours is not None:
            assert (ours.batch_id, ours.ids, ours.created_at) == (theirs.batch_id, theirs.ids, theirs.created_at)
            np.testing.assert_array_equal(ours.x, theirs.x)
        verdicts[theirs is not None] += 1
    assert min(verdicts.values()) > 500, verdicts


def test_the_auditor_and_the_monitor_agree_on_what_usable_labels_are() -> None:
    rng, verdicts = random.Random(6), {True: 0, False: 0}
    values: list[Any] = [*VALUES, [0, 1], [1, 1], [0, 2], [0.0, 1.0], "audit", "delayed"]
    for _ in range(4_000):
        body: dict[str, Any] = {"batch_id": "b", "transaction_ids": ["s", "t"], "labels": [0, 1], "kind": "audit"}
        for _ in range(rng.randrange(3)):
            body[rng.choice(list(body))] = rng.choice(values)
        value = json.dumps(body).encode()
        try:
            check_labels(decode(Labels, value))
            theirs = True
        except Refused:
            theirs = False
        try:
            contract.labels(value)
            ours = True
        except contract.Invalid:
            ours = False
        assert ours == theirs, value
        verdicts[theirs] += 1
    assert min(verdicts.values()) > 500, verdicts
