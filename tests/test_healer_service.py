"""The healer on a real broker: one request, one outcome, whatever is killed and whenever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from healer_kit import AT, Pipeline, X, Y, same_tensors

import healer.registry
from healer.reference import heal
from healer.registry import Registry
from shared.adapters import first_adapter, pack
from shared.bundle import Bundle
from shared.errors import Refused, Rewind
from shared.kafka import Out, Session
from shared.records import OffsetRange
from shared.topics import topic_name

pytestmark = pytest.mark.broker
NOBODY = "0" * 64


@pytest.fixture
def pipeline(kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: Any, wait_for: Any) -> Pipeline:
    return Pipeline(kafka, prefix, bundle, read_topic, wait_for)


def test_requests_become_registry_entries_numbered_through_a_restart(pipeline: Pipeline) -> None:
    rows = pipeline.publish_rows("one")
    with pipeline.healing():
        pipeline.ask(rows)
        pipeline.ask(rows, request_id="heal-2", base_version="v3", parameters={"heal_steps": 3.0, "heal_lr": 0.01})
        pipeline.await_outcomes(2)
    with pipeline.healing():  # a fresh process in the same slot: the numbers go on, and a rollback is a base
        pipeline.ask(rows, request_id="heal-3", base_version="v3", labels=[])
        events = pipeline.await_outcomes(3)

    first, bundle, x = first_adapter(pipeline.bundle), pipeline.bundle, X.astype(np.float32)
    one = heal(bundle, first, x, Y)
    two = heal(bundle, one.adapter, x, Y, 3, 0.01)
    three = heal(bundle, one.adapter, x)
    adapters = pipeline.adapters()
    assert [*adapters] == ["v2", "v3", "v4", "v5", "v6", "v7"]
    expected = dict(
        zip(adapters, (first, one.adapter, one.adapter, two.adapter, one.adapter, three.adapter), strict=True)
    )
    assert all(same_tensors(adapters[v], expected[v]) for v in adapters)
    lineage = [(h["version"], h["parent"], h["stage"], h["request"], h["at"]) for h in pipeline.headers()]
    assert lineage == [
        ("v2", "v1", "pre-heal", "heal-1", AT), ("v3", "v2", "post-heal", "heal-1", AT),
        ("v4", "v3", "pre-heal", "heal-2", AT), ("v5", "v4", "post-heal", "heal-2", AT),
        ("v6", "v3", "pre-heal", "heal-3", AT), ("v7", "v6", "post-heal", "heal-3", AT),
    ]  # fmt: skip

    facts = events[0].facts
    assert (events[0].kind, events[0].at, events[0].service) == ("heal-finished", AT, "healer")
    assert {k: facts[k] for k in ("request_id", "base_version", "pre_version", "post_version")} == {
        "request_id": "heal-1", "base_version": "v1", "pre_version": "v2", "post_version": "v3",
    }  # fmt: skip
    assert {k: facts[k] for k in msgspec.structs.asdict(one.summary)} == msgspec.structs.asdict(one.summary)
    assert events[2].facts["accuracy_after"] is None
    assert [e.kind for e in pipeline.events() if e.kind.startswith("service-")] == [
        "service-started",
        "service-stopped",
    ] * 2


def test_what_cannot_be_healed_fails_by_name_and_takes_no_number(pipeline: Pipeline) -> None:
    rows = pipeline.publish_rows("one")
    transactions, labels = rows
    bad = pipeline.publish("transactions", b"{")
    other = OffsetRange(topic="elsewhere", partition=0, start=0, end=1)
    huge = msgspec.structs.replace(transactions, end=10**9)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"policy": "guarded", "blocks": [2]}, "blocks: 2 entries in blocks, 1 named"),
        ({"policy": "guarded", "purpose": "learn"}, "fresh: 0 of 1 entries"),
        ({"policy": "guarded", "purpose": "learn", "fresh": 1, "labels": []}, "too-few-labels"),
        ({"bundle": NOBODY}, "bundle: asked for 000000000000"),
        ({"base_version": "v9"}, "base_version: base-unknown: v9"),
        ({"transactions": [transactions, other]}, "transactions[1].topic: elsewhere is not"),
        ({"transactions": [msgspec.structs.replace(transactions, partition=7)]}, "has no partition 7"),
        ({"transactions": [msgspec.structs.replace(transactions, end=transactions.start)]}, "no offset from"),
        ({"transactions": [huge]}, "too-many-rows"),
        ({"labels": [msgspec.structs.replace(labels, end=labels.end + 1)]}, "rows-gone"),
        ({"transactions": [bad]}, "rows-unreadable"),
        ({"parameters": {"heal_steps": 2.5}}, "parameters.heal_steps: 2.5 is no whole number"),
        ({"parameters": {"heal_lr": -1.0}}, "parameters.heal_lr"),
    ]
    with pipeline.healing():
        for more, _ in cases:
            pipeline.ask(rows, **more)
        junk = pipeline.publish("heal-requests", b'{"request_id": "x", "policy": "pray"}', key="x")
        pipeline.ask(rows, request_id="good")
        events = pipeline.await_outcomes(len(cases) + 1)

    for (_, reason), event in zip(cases, events, strict=False):
        assert (event.kind, event.at) == ("heal-failed", AT)
        assert reason in event.facts["reason"]
    assert [e.facts.get("post_version") for e in events[len(cases) :]] == ["v3"]
    [letter] = pipeline.dead_letters()
    assert letter.value() == b'{"request_id": "x", "policy": "pray"}'
    assert letter.key().decode() == f"{junk.topic}/0/{junk.start}"
    assert dict(letter.headers()) == {
        "reason": b"Invalid enum value 'pray'", "field": b"policy", "source.topic": junk.topic.encode(),
        "source.partition": b"0", "source.offset": str(junk.start).encode(), "service": b"healer",
    }  # fmt: skip


def test_rows_that_retention_took_fail_the_heal(pipeline: Pipeline) -> None:
    rows = pipeline.publish_rows("one")
    gone = TopicPartition(rows[0].topic, 0, rows[0].end)
    admin = AdminClient(pipeline.kafka)
    for future in admin.delete_records([gone]).values():
        future.result(10)
    with pipeline.healing():
        pipeline.ask(rows)
        [event] = pipeline.await_outcomes(1)
    assert event.kind == "heal-failed"
    assert event.facts["reason"].startswith("rows-gone: offsets 0..1")
    assert pipeline.adapters() == {}


def test_entries_for_another_bundle_count_but_are_no_base(pipeline: Pipeline) -> None:
    alien = msgspec.structs.replace(first_adapter(pipeline.bundle), version="v6", parent="v1", bundle=NOBODY)
    value, headers = pack(alien, request="r", stage="post-heal", summary={}, at=AT)
    pipeline.publish("adapters", value, key="v6", headers=headers)
    pipeline.publish("adapters", b"junk", key="v7")
    pipeline.publish("adapters", b"junk", key="not-a-version")
    rows = pipeline.publish_rows("one")
    with pipeline.healing():
        pipeline.ask(rows, base_version="v6")
        pipeline.ask(rows, base_version="not-a-version")
        pipeline.ask(rows)
        refused, unknown, finished = pipeline.await_outcomes(3)
    assert "base-refused: v6: bundle: made for bundle 000000000000" in refused.facts["reason"]
    assert "base-unknown: not-a-version" in unknown.facts["reason"]
    assert (finished.facts["pre_version"], finished.facts["post_version"]) == ("v8", "v9")


def test_the_registry_reads_old_entries_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healer.registry, "KEPT", 2)
    made = {}
    for i in range(2, 7):
        adapter = msgspec.structs.replace(first_adapter(pipeline.bundle), version=f"v{i}", logit_shift=float(i))
        value, headers = pack(adapter, request="r", stage="post-heal", summary={}, at=AT)
        pipeline.publish("adapters", value, key=adapter.version, headers=headers)
        made[adapter.version] = adapter
    topic = topic_name("adapters", pipeline.prefix)
    registry = Registry(pipeline.kafka, topic, pipeline.bundle, name="test", budget_s=20)
    try:
        registry.refresh()
        assert registry.next_versions(2) == ["v7", "v8"]
        assert [registry.get(v).logit_shift for v in ("v2", "v6", "v3", "v1")] == [2, 6, 3, 0]
        registry.add([msgspec.structs.replace(made["v2"], version="v7")])  # committed, not yet seen
        assert registry.next_versions(1) == ["v8"]
        assert registry.get("v7").logit_shift == 2
    finally:
        registry.close()


# A real healer process that stops dead at one point of its first commit, and says so.
PROCESS = """
import sys, time
from pathlib import Path
from shared import bundle, kafka
from healer import service
from shared.settings import HealerSettings, load
from shared.telemetry import set_up_logging

set_up_logging()  # on stderr; stdout is for the test
servers, prefix, folder, where = sys.argv[1:]
commit = kafka.Session.commit

def hang():
    print("here", "torch._dynamo" in sys.modules, flush=True)
    time.sleep(600)

def watched(self, outputs, **more):
    outputs = list(outputs)
    healed = any(out.topic.endswith("adapters") for out in outputs)
    commit(self, outputs, **({"before_commit": hang} if healed and where == "before" else more))
    if healed and where == "after":
        hang()

kafka.Session.commit = watched
settings = load(HealerSettings, prefix=prefix, session_timeout_ms=6000)
service.run(settings, {"bootstrap.servers": servers}, bundle.load(Path(folder)), lambda: False)
"""


@contextmanager
def process(pipeline: Pipeline, folder: Path, where: str) -> Iterator[subprocess.Popen[str]]:
    arguments = [pipeline.kafka["bootstrap.servers"], pipeline.prefix, str(folder), where]
    child = subprocess.Popen([sys.executable, "-c", PROCESS, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait(20)
        child.stdout.close()


@pytest.mark.parametrize("where", ["before", "after"])
def test_sigkill_around_the_commit_leaves_one_outcome(pipeline: Pipeline, bundle_dir: Path, where: str) -> None:
    rows = pipeline.publish_rows("one")
    pipeline.ask(rows)
    with process(pipeline, bundle_dir, where) as child:
        # The heal is made, without PyTorch's compiler, and its transaction is full or just committed: SIGKILL.
        assert child.stdout.readline() == "here False\n"
    assert pipeline.committed() == (where == "after")
    with pipeline.healing():  # the same slot
        pipeline.ask(rows, request_id="heal-2", base_version="v3")
        pipeline.await_outcomes(2)
    assert [e.facts["request_id"] for e in pipeline.outcomes()] == ["heal-1", "heal-2"]
    adapters = pipeline.adapters()
    assert [*adapters] == ["v2", "v3", "v4", "v5"]
    x = X.astype(np.float32)
    assert same_tensors(adapters["v3"], heal(pipeline.bundle, first_adapter(pipeline.bundle), x, Y).adapter)
    assert pipeline.committed() == 2


def test_a_base_that_was_never_published_is_refused_by_name(pipeline: Pipeline) -> None:
    registry = Registry(
        pipeline.kafka, topic_name("adapters", pipeline.prefix), pipeline.bundle, name="test", budget_s=20
    )
    try:
        with pytest.raises(Refused, match="base-unknown: v2"):
            registry.get("v2")
    finally:
        registry.close()


def test_another_slot_takes_over_and_the_numbers_go_on(pipeline: Pipeline) -> None:
    rows = pipeline.publish_rows("one")

    def started() -> list[str]:
        return sorted(e.facts["slot"] for e in pipeline.events() if e.kind == "service-started")

    with ExitStack() as first, ExitStack() as second:
        first.enter_context(pipeline.healing("a"))
        pipeline.ask(rows)
        pipeline.await_outcomes(1)
        second.enter_context(pipeline.healing("b"))
        pipeline.wait_for(lambda: started() == ["a", "b"], "the second healer")
        first.close()
        pipeline.ask(rows, request_id="heal-2", base_version="v3")
        events = pipeline.await_outcomes(2)
    assert [(e.facts["request_id"], e.facts["post_version"]) for e in events] == [("heal-1", "v3"), ("heal-2", "v5")]


def test_an_aborted_answer_is_given_again_under_the_same_numbers(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance aborts a transaction that is full: nothing of it is seen, and the request comes again."""
    commit, aborted = Session.commit, []

    def failing() -> None:
        aborted.append(True)
        raise Rewind("as a rebalance would")

    def commit_failing_twice(self: Session, outputs: list[Out]) -> None:
        healed = any(out.topic.endswith("adapters") for out in outputs)
        commit(self, outputs, before_commit=failing if healed and len(aborted) < 2 else None)

    monkeypatch.setattr(Session, "commit", commit_failing_twice)
    rows = pipeline.publish_rows("one")
    with pipeline.healing():
        pipeline.ask(rows)
        [event] = pipeline.await_outcomes(1)
    assert len(aborted) == 2
    assert (event.kind, event.facts["post_version"]) == ("heal-finished", "v3")
    assert [*pipeline.adapters()] == ["v2", "v3"]


def test_a_request_with_endless_names_gets_an_outcome_too(pipeline: Pipeline) -> None:
    rows = pipeline.publish_rows("one")
    endless = "x" * 1_900_000
    with pipeline.healing():
        pipeline.ask(rows, batch_id=endless, at=endless)
        pipeline.ask((msgspec.structs.replace(rows[0], topic=endless), rows[1]))
        finished, failed = pipeline.await_outcomes(2)
    assert (finished.kind, finished.facts["batch_id"], finished.at) == ("heal-finished", "x" * 200, "x" * 200)
    assert (failed.kind, failed.facts["reason"][:31]) == ("heal-failed", "transactions[0].topic: xxxxxxxx"[:31])
    assert len(failed.facts["reason"]) <= 1_000
