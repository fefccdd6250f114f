"""What `status` says of a pipeline, and a person's orders on the control topic."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from selfheal.control import pin, versions
from selfheal.status import as_json, look, view
from shared.errors import OperatorError
from shared.kafka import Out, Session, Writer, read_all
from shared.records import Control, Event, Metrics, decode, encode
from shared.telemetry import wall_clock
from shared.topics import group_name, topic_name

pytestmark = pytest.mark.broker


def publish(kafka: dict[str, str], prefix: str, *records: tuple[str, str, bytes]) -> None:
    Writer(kafka, "test").publish(Out(f"{prefix}.{name}", key, value) for name, key, value in records)


def order(kafka: dict[str, str], prefix: str) -> dict[str, str | None]:
    """The newest record of each setting on control."""
    controls = [decode(Control, r.value) for r in read_all(kafka, topic_name("control", prefix))]
    return {c.setting: c.version for c in controls}


def test_a_pipeline_that_never_ran(kafka: dict[str, str], prefix: str) -> None:
    found = look(kafka, prefix)
    assert (found.active, found.pin, found.latest, found.producer, found.events) == ("v1", None, None, None, [])
    assert [(s.service, s.members, s.behind) for s in found.services] == [
        ("scorer", [], None), ("healer", [], None), ("monitor", [], None),
    ]  # fmt: skip
    assert msgspec.json.decode(as_json(found))["prefix"] == prefix


def test_no_topics_names_the_command_that_makes_them(kafka: dict[str, str]) -> None:
    with pytest.raises(OperatorError, match="selfheal topics --prefix nobody-made-these"):
        look(kafka, "nobody-made-these")


def test_it_tells_who_runs_what_is_served_and_who_lags(kafka: dict[str, str], prefix: str) -> None:
    at = wall_clock()
    row = Metrics(batch_idx=7, batch_id="b7", timestamp=at, rows=100, z_score=1.4, n_conflicts=3, state="DRIFTING",
                  verdict="outage", alarm_z=9.5, candidate_version="v4", evidence=1.5)  # fmt: skip
    events = [
        Event(at=at, kind="service-started", message="scorer up", service="scorer", facts={"bundle": "cafe" * 16}),
        Event(at=at, kind="service-started", message="producer 0 started", service="producer"),
        Event(at=at, kind="service-started", message="monitor up", service="monitor", facts={"policy": "guarded"}),
        Event(at=at, kind="drift-detected", message="V14 drifts", service="monitor"),
    ]
    publish(
        kafka, prefix, ("metrics", "b7", encode(row)),
        ("metrics", "b6", encode(msgspec.structs.replace(row, batch_idx=6))),
        ("control", "active", encode(Control(setting="active", at=at, by="monitor", reason="heal-1", version="v3"))),
        ("control", "candidate", encode(Control(setting="candidate", at=at, by="monitor", reason="x", version="v4"))),
        ("events", "junk", b"not json"), *(("events", e.service, encode(e)) for e in events),
        *(("transactions", f"b{i}", b"{}") for i in range(5)),
    )  # fmt: skip
    session = Session(
        kafka, name="scorer-0", group=group_name("scorer", prefix), topics=[topic_name("transactions", prefix)],
        budget_s=30,
    )  # fmt: skip
    try:
        taken: list[object] = []
        while len(taken) < 5:
            taken += session.take(10, 1.0)
        session.commit([])
        publish(kafka, prefix, ("transactions", "b9", b"{}"))
        found = look(kafka, prefix)
    finally:
        session.close()
    scorer = found.services[0]
    assert [m["name"] for m in scorer.members] == ["scorer-0"]
    assert scorer.members[0]["partitions"] == "transactions 0 1"
    assert scorer.behind == 1
    assert (found.active, found.bundle) == ("v3", "cafe" * 16)
    assert found.latest is not None
    assert found.latest.batch_idx == 7
    assert found.producer is not None
    assert [e.kind for e in found.events] == [e.kind for e in events]
    console = Console(file=io.StringIO(), width=120)
    console.print(view(found))
    text = console.file.getvalue()
    for part in ("scorer-0", "transactions 0 1", "v3: heal-1 (monitor)", "DRIFTING at batch 7", "V14 drifts", "nobody"):
        assert part in text
    assert found.policy == "guarded"
    for part in ("guarded", "v4, on trial, ln E 1.5", "outage at batch 7 (z 9.5)"):
        assert part in text


def test_pin_and_unpin(kafka: dict[str, str], prefix: str) -> None:
    publish(kafka, prefix, ("adapters", "v2", b"bytes"), ("adapters", "v3", b"bytes"))
    assert versions(kafka, prefix) == ["v1", "v2", "v3"]
    with pytest.raises(OperatorError, match=r"no adapter v9: the newest are v1, v2, v3"):
        pin(kafka, prefix, "v9", "why not")
    assert order(kafka, prefix) == {}
    by = pin(kafka, prefix, "v2", "the newest misbehaves")
    assert order(kafka, prefix) == {"pin": "v2"}
    assert look(kafka, prefix).pin == "v2"
    (record,) = (decode(Control, r.value) for r in read_all(kafka, topic_name("control", prefix)))
    assert (record.by, record.reason) == (by, "the newest misbehaves")
    pin(kafka, prefix, None, "done")
    assert look(kafka, prefix).pin is None
