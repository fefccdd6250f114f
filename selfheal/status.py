"""What is running, and how it stands: read from the cluster alone, so it says the same wherever it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from selfheal.members import held, members_of
from selfheal.tail_lines import REFUSALS, STYLES, clean, event_style, score
from shared.errors import OperatorError, Refused
from shared.kafka import (
    Deadline,
    Fetcher,
    Member,
    Taken,
    closing,
    group_offsets,
    list_topics,
    watermarks,
)  # fmt: skip
from shared.records import FIRST_VERSION, Control, Event, Metrics, OffsetRange, decode, decode_event
from shared.topics import TOPICS, Name, group_name, topic_name

READS: dict[str, tuple[Name, ...]] = {
    "scorer": ("transactions",),
    "healer": ("heal-requests",),
    "monitor": ("predictions", "labels"),  # of events it skips most, so how many are left says nothing
}
# Topics written in transactions alone: behind the last record of a partition stands one marker that nobody consumes.
MARKED: tuple[Name, ...] = ("predictions", "heal-requests")
LAST_EVENTS = 5
LOOK_BACK = 5_000  # offsets, some 2 MB: a pipeline that heals at every batch writes three events for each
BUDGET_S = 20.0


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """members: living processes of the group, by name; None where nobody could say just now. behind: records not yet
    committed, None where the service has never committed anything."""

    service: str
    members: list[dict[str, Any]] | None
    behind: int | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a pipeline. latest: its newest metrics row. producer: the newest event of a producer."""

    bootstrap: str
    prefix: str
    services: list[Service]
    producer: Event | None
    bundle: str | None
    policy: str | None  # of the newest monitor
    active: str
    pin: str | None
    candidate: str | None
    decided: Control | None  # the control record behind `active`
    thresholds: dict[str, float]
    latest: Metrics | None
    events: list[Event]


def look(kafka: Mapping[str, Any], prefix: str) -> Status:
    """Ask the cluster. Raises OperatorError: no broker answers, or the pipeline's topics are not there."""
    there = list_topics(kafka)
    if missing := [topic_name(n, prefix) for n in TOPICS if topic_name(n, prefix) not in there]:
        how = f"selfheal topics{f' --prefix {prefix}' if prefix else ''}"
        raise OperatorError(f"no pipeline here: {', '.join(missing[:3])} missing of its topics. `{how}` creates them")
    with closing(Fetcher(kafka, "status")) as fetcher:
        events = _decoded(_newest(kafka, fetcher, topic_name("events", prefix)), decode_event)
        rows = _decoded(_newest(kafka, fetcher, topic_name("metrics", prefix)), lambda v: decode(Metrics, v))
        orders = _decoded(
            _newest(kafka, fetcher, topic_name("control", prefix), all_of_it=True), lambda v: decode(Control, v)
        )
    control = {order.setting: order for order in orders}
    running = members_of(kafka, [group_name(name, prefix) for name in READS])
    active, pin = control.get("active"), control.get("pin")
    return Status(
        bootstrap=str(kafka.get("bootstrap.servers")),
        prefix=prefix,
        services=[_service(kafka, prefix, name, running) for name in READS],
        producer=next((e for e in reversed(events) if e.service == "producer"), None),
        bundle=next((str(e.facts["bundle"]) for e in reversed(events) if e.facts.get("bundle")), None),
        policy=next((str(e.facts["policy"]) for e in reversed(events) if _is_monitor(e)), None),
        active=(active.version if active else None) or FIRST_VERSION,
        pin=pin.version if pin else None,
        candidate=control["candidate"].version if "candidate" in control else None,
        decided=active,
        thresholds=dict(control["thresholds"].values or {}) if "thresholds" in control else {},
        latest=max(rows, key=lambda row: row.batch_idx, default=None),
        events=events[-LAST_EVENTS:],
    )


def as_json(status: Status) -> bytes:
    """One JSON object."""
    return msgspec.json.encode(status)


def view(status: Status) -> Group:
    """The same for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("service", "running", "partitions", "behind"):
        table.add_column(column, justify="right" if column == "behind" else "left")
    for service in status.services:
        names = ", ".join(f"{m['name']} ({m['host']})" for m in service.members or ())
        partitions = ", ".join(m["partitions"] for m in service.members or () if m["partitions"])
        nobody = Text("nobody", style="red") if service.members is not None else Text("unknown: ask again")
        running = Text(clean(names), style="green") if names else nobody
        behind = "-" if service.behind is None else str(service.behind)
        table.add_row(service.service, running, clean(partitions), behind)
    said = "no event yet" if status.producer is None else f"{status.producer.message} ({status.producer.at})"
    table.add_row("producer", Text(clean(said), style="default"), "", "")
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="dim")
    facts.add_column()
    for name, value in _facts(status):
        facts.add_row(name, value)
    lines = [
        Text.assemble((f"{clean(e.kind):<18} ", event_style(e.kind, e.facts)), clean(e.message)) for e in status.events
    ]
    return Group(table, Text(), facts, Text(), *lines)


def _facts(status: Status) -> Iterable[tuple[str, Text]]:
    where = status.bootstrap + (f", prefix {status.prefix}" if status.prefix else "")
    yield "kafka", Text(where)
    yield "bundle", Text((status.bundle or "unknown")[:16])
    if status.policy is not None:
        yield "policy", Text(clean(status.policy))
    decided = f": {status.decided.reason} ({status.decided.by})" if status.decided else ": the bundle's own"
    yield "active adapter", Text.assemble((status.active, "bold"), clean(decided))
    if status.pin is not None:
        yield "pinned", Text(f"{status.pin}: a person's order, it wins over active", style="yellow")
    row = status.latest
    if status.candidate is not None:
        trial = f", on trial, ln E {row.evidence:.1f}" if row is not None and row.evidence is not None else ", on trial"
        yield "candidate", Text(clean(status.candidate) + trial)
    if row is None:
        yield "state", Text("nothing scored yet", style="dim")
        return
    if row.verdict:
        about = f" (z {row.alarm_z:.1f})" if row.alarm_z is not None else ""
        style = "bold red" if row.verdict in REFUSALS else "green" if row.verdict == "none" else "yellow"
        yield "verdict", Text.assemble((clean(row.verdict), style), f" at batch {row.batch_idx}{about}")
    z = f"z {score(row.z_score)}"
    accuracy = f"accuracy {score(row.accuracy_healed)} (frozen {score(row.accuracy_shadow)})"
    yield "state", Text.assemble((row.state, STYLES.get(row.state, "")), f" at batch {row.batch_idx}, {z}, {accuracy}")


def _is_monitor(event: Event) -> bool:
    return event.kind == "service-started" and event.service == "monitor" and "policy" in event.facts


def _service(
    kafka: Mapping[str, Any], prefix: str, service: str, running: Mapping[str, list[Member]] | None
) -> Service:
    group = group_name(service, prefix)
    members = None if running is None else [
        {"name": m.client_id, "host": m.host.lstrip("/"), "partitions": held(m.partitions, prefix)}
        for m in sorted(running[group])
    ]  # fmt: skip
    committed = group_offsets(kafka, group, [topic_name(n, prefix) for n in READS[service]])
    if not committed:
        return Service(service=service, members=members, behind=None)
    behind = 0
    for name in READS[service]:
        topic = topic_name(name, prefix)
        for partition, (low, high) in watermarks(kafka, topic).items():
            left = high - max(low, committed.get((topic, partition), low))
            behind += max(0, left - 1) if name in MARKED else left
    return Service(service=service, members=members, behind=behind)


def _newest(kafka: Mapping[str, Any], fetcher: Fetcher, topic: str, *, all_of_it: bool = False) -> list[Taken]:
    """The end of a topic of one partition: metrics and events may be long, and only their newest is asked for."""
    low, high = watermarks(kafka, topic)[0]
    start = low if all_of_it else max(low, high - LOOK_BACK)
    if start == high:
        return []
    return fetcher.fetch(OffsetRange(topic=topic, partition=0, start=start, end=high), Deadline(BUDGET_S))


def _decoded(records: list[Taken], read: Any) -> list[Any]:
    """What can be read of them: a record that somebody else put there is no reason to show nothing."""
    found = []
    for record in records:
        try:
            found.append(read(record.value))
        except Refused:
            continue
    return found
