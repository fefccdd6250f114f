"""Policy guarded on a real broker: the rows come from the transactions topic, the answer from a healer's event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import pytest
from monitor_kit import event, stamp
from test_monitor_service import PATIENCE_S, Seen, publish, settings, thread

from monitor.decide import Input
from monitor.setup import Setup
from monitor.thresholds import Thresholds
from producer.scenarios import find
from scorer.decode import Batch
from scorer.score import Job, score
from selfheal.gauntlet.world import Arrival, arrivals
from shared.adapters import first_adapter
from shared.bundle import Array, Bundle
from shared.errors import OperatorError
from shared.forward import Folded, Network
from shared.kafka import Deadline, Fetcher, Out, Writer, closing
from shared.profile import frozen_logit
from shared.records import HealRequest, Source, decode, encode
from shared.settings import MonitorSettings
from shared.topics import topic_name

pytestmark = pytest.mark.broker
WaitFor = Callable[..., None]
CLEAN = 10  # batches of a scenario before it drifts
DRIFTED = 3  # asked about from the first; with a fourth it would be asked again, by more rows


def fed(kafka: Mapping[str, str], prefix: str, given: Sequence[Arrival], first: int) -> None:
    """Batches on the transactions topic, in its second partition, numbered from first."""
    topic = topic_name("transactions", prefix)
    records = [
        {"batch_id": f"b{k}", "transaction_ids": [f"b{k}-{i}" for i in range(len(a.x))], "features": a.x.tolist(),
         "created_at": stamp(k)}
        for k, a in enumerate(given, start=first)
    ]  # fmt: skip
    with closing(Writer(kafka, "feed")) as writer:
        writer.publish(Out(topic, r["batch_id"].encode(), encode(r), {}, partition=1) for r in records)


def scored(bundle: Bundle, topic: str, x: Array, k: int) -> Input:
    """What a scorer would publish of batch k by the bundle's own adapter; k - 1 is its offset."""
    network = Network.of(bundle)
    where = Source(topic=topic, partition=1, offset=k - 1)
    batch = Batch(f"b{k}", [f"b{k}-{i}" for i in range(len(x))], x, stamp(k))
    job = Job(batch, msgspec.structs.asdict(where), Folded.of(first_adapter(bundle), network))
    (answer,) = score([job], bundle, network, None)
    assert not isinstance(answer, Exception)
    return Input("predictions", where, f"b{k}".encode(), answer.prediction, {})


def test_drift_is_asked_about_by_offset_and_its_repair_is_put_in_force(
    kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor
) -> None:
    given = list(arrivals(find("S1"), 0, frozen_logit(Network.of(bundle)), CLEAN + DRIFTED))
    topic = topic_name("transactions", prefix)
    fed(kafka, prefix, given, 1)
    predictions = [scored(bundle, topic, a.x, k) for k, a in enumerate(given, start=1)]
    run = settings(prefix, policy="guarded", turn_max=4)
    with closing(Seen(kafka, prefix)) as seen:
        with thread(kafka, bundle, **run) as raised:
            publish(kafka, prefix, predictions[: CLEAN + 2])
            wait_for(lambda: raised or seen.of("heal-requests"), "a diagnosis is asked", PATIENCE_S)
            assert raised == []
        (record,) = seen.of("heal-requests")
        asked = decode(HealRequest, record.value)
        assert (asked.policy, asked.purpose, asked.base_version) == ("guarded", "diagnose", "v1")
        assert {(t.topic, t.partition) for t in asked.transactions} == {(topic, 1)}
        newest = int(asked.batch_id.removeprefix("b"))
        assert [(t.start, t.end) for t in asked.transactions] == [(k, k + 1) for k in range(newest)][-10:]
        assert sum(asked.blocks) == len(asked.transactions)
        assert asked.parameters["first_batch_idx"] == newest - len(asked.transactions) + 1
        with closing(Fetcher(kafka, "healer")) as fetcher:
            rows = [t for r in asked.transactions for t in fetcher.fetch(r, Deadline(PATIENCE_S))]
        assert [(r.key or b"").decode() for r in rows][-1] == asked.batch_id
        publish(kafka, prefix, [repaired(asked, bundle)])  # while there is no monitor
        with thread(kafka, bundle, **run) as raised:
            publish(kafka, prefix, predictions[CLEAN + 2 :])
            wait_for(lambda: raised or seen.settled() == len(given), "all rows settled", PATIENCE_S)
        assert raised == []
        active = [c["version"] for c in seen.bodies("control") if c["setting"] == "active"]
        assert active == ["v1", "v2"]
        (activated,) = seen.events("adapter-activated")
        assert (activated["version"], activated["verdict"], activated["request_id"]) == (
            "v2",
            "shift",
            asked.request_id,
        )
        assert seen.rows()[asked.batch_id].next_version == "v2"
        assert len(seen.events("alarm")) == 1
        assert len(seen.of("heal-requests")) == 1  # the state outlived the process, the repair explains what came


def test_rows_that_retention_took_are_counted_and_everything_else_goes_on(
    kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor
) -> None:
    (given, *_) = arrivals(find("S1"), 0, frozen_logit(Network.of(bundle)), 1)
    topic = topic_name("transactions", prefix)
    fed(kafka, prefix, [given], 1)
    beyond, foreign = scored(bundle, topic, given.x, 900), scored(bundle, "another.transactions", given.x, 901)
    with (
        closing(Seen(kafka, prefix)) as seen,
        thread(kafka, bundle, **settings(prefix, policy="guarded")) as raised,
    ):
        publish(kafka, prefix, [beyond, foreign, scored(bundle, topic, given.x, 1)])
        wait_for(lambda: raised or seen.settled() == 3, "three rows settled", PATIENCE_S)
        assert raised == []
        rows = seen.rows()
    assert [rows[b].verdict for b in ("b900", "b901", "b1")] == ["none"] * 3
    assert [rows[b].alarm_z == 0 for b in ("b900", "b901", "b1")] == [True, True, False]


def test_a_bundle_without_frauds_is_refused_with_the_way_out(bundle: Bundle) -> None:
    poor = msgspec.structs.replace(bundle, reference_y=np.zeros_like(bundle.reference_y))
    with pytest.raises(OperatorError, match=r"diagnosis needs 30 labelled rows .* --policy observe"):
        Setup.of(poor, MonitorSettings(policy="guarded"), Thresholds())


def repaired(asked: HealRequest, bundle: Bundle) -> Input:
    """A healer's success: V14 is 2.2 lower than it was."""
    d = len(bundle.features)
    shift = [0.0] * d
    shift[bundle.features.index("V14")] = -2.2
    return event(
        "heal-finished", request_id=asked.request_id, base_version="v1", batch_id=asked.batch_id, policy="guarded",
        purpose="diagnose", verdict="shift", reason="r", n_blocks=2, rows=200, active_fits=False, promote=True,
        refinement=False, changes=[], fraud_rate=float(bundle.reference_y.mean()), order=[], shift=shift,
        scale=[1.0] * d, flagged_before=0.6, flagged_after=0.14, since_batch_idx=11, post_version="v2",
    )  # fmt: skip
