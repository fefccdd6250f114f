"""Policy guarded on a real broker: one request, one outcome, for both purposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from healer_kit import AT, Pipeline, same_tensors

from healer.guarded import learned
from healer.rows import Entry
from producer.generator import REFERENCE, Labels, Rows
from shared.adapters import first_adapter
from shared.alignment import alignment_of
from shared.bundle import Bundle, save
from shared.errors import Rewind
from shared.kafka import Out, Session
from shared.profile import profile_of
from shared.records import OffsetRange

pytestmark = pytest.mark.broker
V14 = 7


@pytest.fixture
def pipeline(kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: Any, wait_for: Any) -> Pipeline:
    return Pipeline(kafka, prefix, bundle, read_topic, wait_for)


def drifted(seed: int, factor: float = 10.0) -> tuple[Rows, Labels]:
    """100 rows whose V14 arrives in another unit."""
    x, y = REFERENCE.rows(np.random.default_rng(seed), 100)
    x[:, V14] *= factor
    return x, y


def publish(pipeline: Pipeline, count: int) -> tuple[list[OffsetRange], list[OffsetRange]]:
    """So many drifted batches, the labels of all."""
    pairs = [pipeline.publish_rows(f"batch-{i}", *drifted(i)) for i in range(count)]
    return [rows for rows, _ in pairs], [labels for _, labels in pairs]


def test_a_diagnosis_and_a_lesson_have_one_outcome_each_whatever_is_aborted(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, aborted = Session.commit, []

    def failing() -> None:
        aborted.append(True)
        raise Rewind("as a rebalance would")

    def commit_failing_first(self: Session, outputs: list[Out]) -> None:
        outputs = list(outputs)
        entries = {out.key for out in outputs if out.topic.endswith("adapters")}
        commit(self, outputs, before_commit=failing if entries and len(aborted) in (0, 1, 3) else None)
        if entries:
            aborted.append(False)

    monkeypatch.setattr(Session, "commit", commit_failing_first)
    rows, labels = publish(pipeline, 4)
    diagnose = {"policy": "guarded", "transactions": rows, "labels": [], "blocks": [1, 1, 1, 1]}
    learn = {"policy": "guarded", "purpose": "learn", "transactions": rows, "labels": labels, "fresh": 2}
    with pipeline.healing():
        pipeline.ask((rows[0], labels[0]), **diagnose, parameters={"first_batch_idx": 412})
        pipeline.await_outcomes(1)
        more = {"request_id": "learn-1", "base_version": "v2", "parameters": {"active_version_number": 1}}
        request = pipeline.ask((rows[0], labels[0]), **learn, **more)
        pipeline.await_outcomes(2)
        quiet = pipeline.publish_rows("quiet", *REFERENCE.rows(np.random.default_rng(9), 400))
        pipeline.ask(quiet, request_id="heal-3", policy="guarded", transactions=[quiet[0], rows[0]], labels=[])
        healed, taught, left = pipeline.await_outcomes(3)

    assert aborted.count(True) == 3
    assert [*pipeline.adapters()] == ["v2", "v3"]
    lineage = [(h["version"], h["parent"], h["stage"], h["request"], h["at"]) for h in pipeline.headers()]
    assert lineage == [("v2", "v1", "post-heal", "heal-1", AT), ("v3", "v2", "candidate", "learn-1", AT)]

    facts, repair = healed.facts, pipeline.adapters()["v2"]
    assert (healed.kind, facts["verdict"], facts["n_blocks"], facts["rows"]) == ("heal-finished", "units", 4, 400)
    assert healed.message.startswith("V14 arrives x10 since batch 412; undone by v2; estimated accuracy .")
    held = alignment_of(repair, profile_of(pipeline.bundle).fraud_rate)
    assert (tuple(facts["shift"]), tuple(facts["scale"]), facts["fraud_rate"]) == (
        held.shift,
        held.scale,
        held.fraud_rate,
    )
    assert repair.scale[V14] == 10

    entries = [Entry(x.astype(np.float32), y.astype(np.int8), np.full(100, False)) for x, y in map(drifted, range(4))]
    expected = learned(pipeline.bundle, request, entries, repair, first_adapter(pipeline.bundle), "v3")
    assert expected.adapter is not None
    assert same_tensors(pipeline.adapters()["v3"], expected.adapter)
    assert {k: taught.facts[k] for k in expected.facts} == expected.facts
    assert sum(taught.facts["tally"].values()) > 0

    assert (left.kind, left.facts["n_blocks"], left.facts["promote"]) == ("diagnosed", 0, False)


def test_a_bundle_that_cannot_be_diagnosed_says_so_and_is_healed_as_published(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    whole = pipeline.bundle
    keep = np.concatenate([np.flatnonzero(whole.reference_y == 1)[:29], np.flatnonzero(whole.reference_y == 0)])
    pipeline.bundle = save(
        tmp_path / "few", whole.manifest, whole.weights, whole.reference_x[keep], whole.reference_y[keep]
    )
    rows = pipeline.publish_rows("one")
    with pipeline.healing():
        pipeline.ask(rows, policy="guarded")
        pipeline.ask(rows, request_id="learn-1", policy="guarded", purpose="learn", fresh=1)
        pipeline.ask(rows, request_id="heal-2")
        refused, taught, healed = pipeline.await_outcomes(3)
    assert refused.kind == "heal-failed"
    assert refused.facts["reason"].startswith("bundle: not-diagnosable: diagnosis needs 30 labelled rows of either")
    assert (taught.facts["purpose"], taught.facts["post_version"]) == ("learn", "v2")
    assert (healed.kind, healed.facts["post_version"]) == ("heal-finished", "v4")
