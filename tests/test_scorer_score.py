"""Scoring: what a prediction says, and that it says the same whatever else was in the turn."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from scorer.decode import Batch
from scorer.score import Job, Scored, score
from shared.adapters import first_adapter
from shared.bundle import Bundle
from shared.errors import Refused
from shared.forward import Folded, Network, probabilities
from shared.records import Conflicts, Prediction, decode

SOURCE = {"topic": "transactions", "partition": 1, "offset": 42}


@pytest.fixture(scope="module")
def network(bundle: Bundle) -> Network:
    return Network.of(bundle)


@pytest.fixture(scope="module")
def adapters(bundle: Bundle, network: Network) -> dict[str, Folded]:
    """v1, and two that do something, v3 with an alignment."""
    first, rng = first_adapter(bundle), np.random.default_rng(4)

    def reflex() -> dict[str, Any]:
        return {k: (v + rng.normal(0, 0.2, v.shape)).astype(np.float32) for k, v in first.reflex.items()}

    v2 = msgspec.structs.replace(first, version="v2", reflex=reflex())
    v3 = msgspec.structs.replace(first, version="v3", reflex=reflex(), shift=first.shift + np.float32(0.4))
    return {a.version: Folded.of(a, network) for a in (first, v2, v3)}


def drifted(bundle: Bundle, seed: int, rows: int) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, len(bundle.features))).astype(np.float32)
    x[:, bundle.watched_column] -= 2.2
    return Batch(f"b{seed}", [f"t{seed}-{i}" for i in range(rows)], x, "2026-01-01T00:00:00Z")


def read(scored: Scored | Refused) -> tuple[Prediction, Conflicts | None]:
    assert isinstance(scored, Scored), scored
    prediction = decode(Prediction, scored.prediction)
    return prediction, None if scored.conflicts is None else decode(Conflicts, scored.conflicts)


def test_a_prediction_says_it_all(bundle, network, adapters):
    batch = drifted(bundle, 1, 100)
    prediction, conflicts = read(score([Job(batch, SOURCE, adapters["v2"])], bundle, network, None)[0])
    shadow, healed = probabilities(batch.x, network, [adapters["v2"]])
    assert prediction.batch_id == "b1"
    assert prediction.transaction_ids == batch.ids
    assert np.array(prediction.probability, np.float32).tobytes() == healed.tobytes()
    assert np.array(prediction.shadow_probability, np.float32).tobytes() == shadow.tobytes()
    assert (prediction.adapter_version, prediction.bundle) == ("v2", bundle.hash)
    assert msgspec.structs.asdict(prediction.source) == SOURCE
    assert prediction.created_at == batch.created_at
    rule = batch.x[:, bundle.watched_column] < -1.5
    assert prediction.rule == rule.astype(int).tolist()
    assert prediction.flag == (healed > 0.5).astype(int).tolist()
    disagree = np.flatnonzero(rule & (healed < np.float32(0.3)))
    assert 0 < prediction.conflicts == len(disagree) < 100
    assert prediction.feature_sums == pytest.approx(batch.x.sum(axis=0, dtype=np.float64), abs=1e-9)
    assert prediction.feature_squares == pytest.approx((batch.x.astype(np.float64) ** 2).sum(axis=0), rel=1e-12)
    assert prediction.candidate_version is prediction.candidate_probability is None
    assert conflicts is not None
    assert conflicts.transaction_ids == [batch.ids[i] for i in disagree]
    assert np.array(conflicts.features, np.float32).tobytes() == batch.x[disagree].tobytes()
    assert np.array(conflicts.probability, np.float32).tobytes() == healed[disagree].tobytes()
    assert (conflicts.batch_id, conflicts.source, conflicts.adapter_version) == ("b1", prediction.source, "v2")


def test_no_conflicts_no_record(bundle, network, adapters):
    batch = drifted(bundle, 1, 20)
    batch.x[:, bundle.watched_column] = 1.0  # the rule never says fraud
    prediction, conflicts = read(score([Job(batch, SOURCE, adapters["v2"])], bundle, network, None)[0])
    assert (prediction.conflicts, conflicts) == (0, None)


def test_the_same_bytes_whatever_shares_the_turn(bundle, network, adapters):
    rng = np.random.default_rng(9)
    sizes = [1, 2, 7, 8, 9, 100, 333, 1000, 1, 64]
    versions = ["v1", "v2", "v3", "v2", "v2", "v3", "v1", "v2", "v3", "v1"]
    jobs = [
        Job(drifted(bundle, i, n), SOURCE, adapters[v]) for i, (n, v) in enumerate(zip(sizes, versions, strict=True))
    ]
    alone = [score([job], bundle, network, adapters["v3"])[0] for job in jobs]
    for _ in range(5):
        order = rng.permutation(len(jobs))
        together = score([jobs[i] for i in order], bundle, network, adapters["v3"])
        assert together == [alone[i] for i in order]


def test_a_candidate_changes_nothing_else(bundle, network, adapters):
    job = Job(drifted(bundle, 3, 50), SOURCE, adapters["v2"])
    without, with_it = (score([job], bundle, network, candidate)[0] for candidate in (None, adapters["v3"]))
    one, other = json.loads(without.prediction), json.loads(with_it.prediction)
    assert other.pop("candidate_version") == "v3"
    expected = probabilities(job.batch.x, network, [adapters["v3"]])[1]
    assert np.array(other.pop("candidate_probability"), np.float32).tobytes() == expected.tobytes()
    assert one == other


def overflowing(bundle: Bundle, network: Network) -> np.ndarray:
    """A finite row for which the network's answer is not a number."""
    d = len(bundle.features)
    for seed in range(1000):
        row = np.where(np.random.default_rng(seed).random(d) < 0.5, -3e38, 3e38).astype(np.float32)
        if np.isnan(probabilities(row[None], network, [])[0][0]):
            return row
    raise AssertionError("no such row")


def test_an_answer_that_is_no_number_is_refused_and_its_neighbours_are_not(bundle, network, adapters):
    good, bad = drifted(bundle, 1, 10), drifted(bundle, 2, 10)
    expected = score([Job(good, SOURCE, adapters["v2"])], bundle, network, None)[0]
    bad.x[4] = overflowing(bundle, network)
    before, refused, after = score([Job(b, SOURCE, adapters["v2"]) for b in (good, bad, good)], bundle, network, None)
    assert isinstance(refused, Refused)
    assert refused.field == "features[4]"
    assert before == after == expected


def test_a_candidate_without_a_number_is_left_out(bundle, network, adapters):
    broken = msgspec.structs.replace(adapters["v3"], version="v4", c=np.float32("nan"))
    job = Job(drifted(bundle, 3, 5), SOURCE, adapters["v2"])
    assert score([job], bundle, network, broken) == score([job], bundle, network, None)


def test_what_no_topic_can_hold_is_refused(bundle, network, adapters):
    batch = drifted(bundle, 1, 2)._replace(ids=["x" * 2_100_000, "y" * 2_100_000])
    (refused,) = score([Job(batch, SOURCE, adapters["v1"])], bundle, network, None)
    assert isinstance(refused, Refused)
    assert "more than a topic holds" in refused.reason


def test_nothing_to_score(bundle, network):
    assert score([], bundle, network, None) == []
