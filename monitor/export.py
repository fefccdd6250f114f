"""What a run left on its topics, as files: metrics.csv, events.json, threshold_config.json.

The same topics give the same bytes: rows in the monitor's order, floats in their shortest exact form, and no time
but the stream's own. What a clock measured (how long a heal took) stays on the topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shared.bundle import write_whole
from shared.errors import Refused
from shared.kafka import Taken, read_all
from shared.records import FIRST_VERSION, Control, Event, Metrics, decode, decode_event
from shared.telemetry import get_logger
from shared.topics import Name, topic_name

# Kinds that a run is told by. Services starting and stopping is no part of what happened to the model.
TOLD = (
    "drift-detected", "drift-ended", "alarm", "heal-requested", "heal-finished", "heal-failed", "diagnosed",
    "adapter-activated", "adapter-rejected", "rolled-back",
)  # fmt: skip
CLOCKED = ("took_s",)  # facts that a wall clock measured
T = TypeVar("T")
_log = get_logger("export")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its topics tell it. rows: one per batch, by batch_idx. events: of the kinds in TOLD, as published.
    thresholds: in force. active: the version that control names last."""

    rows: list[Metrics]
    events: list[Event]
    thresholds: dict[str, float]
    active: str

    def of_kind(self, kind: str) -> list[Event]:
        return [e for e in self.events if e.kind == kind]


def read_run(kafka: Mapping[str, Any], prefix: str, *, budget_s: float = 60.0) -> Run:
    """Read the topics metrics, events and control of a pipeline as they stand now; a stranger's record that cannot be
    read is passed over and logged. Raises TimedOut."""

    def good(name: Name, kind: Callable[[bytes | None], T]) -> Iterator[tuple[Taken, T]]:
        for record in read_all(kafka, topic_name(name, prefix), budget_s):
            try:
                yield record, kind(record.value)
            except Refused as exc:
                _log.warning("passed_over", topic=record.topic, offset=record.offset, reason=str(exc))

    rows = {record.key: row for record, row in good("metrics", lambda value: decode(Metrics, value))}
    events = [event for _, event in good("events", decode_event)]
    settings = {order.setting: order for _, order in good("control", lambda value: decode(Control, value))}
    active, thresholds = settings.get("active"), settings.get("thresholds")
    return Run(
        rows=sorted(rows.values(), key=lambda row: row.batch_idx),
        events=[e for e in events if e.kind in TOLD],
        thresholds=dict(thresholds.values or {}) if thresholds else {},
        active=(active.version if active else None) or FIRST_VERSION,
    )


def export_run(kafka: Mapping[str, Any], prefix: str, folder: Path, *, budget_s: float = 60.0) -> Run:
    """Write metrics.csv, events.json and threshold_config.json of a pipeline into the folder; returns what was read."""
    run = read_run(kafka, prefix, budget_s=budget_s)
    write_run(run, folder)
    return run


def write_run(run: Run, folder: Path) -> None:
    """The three files; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "metrics.csv", metrics_csv(run.rows))
    write_whole(folder / "events.json", events_json(run.events))
    write_whole(folder / "threshold_config.json", thresholds_json(run.thresholds))


def metrics_csv(rows: Sequence[Metrics]) -> bytes:
    """The columns of Metrics in their order, those of policy guarded only where it gave a verdict; None is empty,
    booleans are true and false."""
    columns = Metrics.__struct_fields__
    if not any(row.verdict for row in rows):
        columns = columns[: columns.index("verdict")]
    lines = [",".join(columns)]
    lines += [",".join(_cell(getattr(row, column)) for column in columns) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    if any(c in text for c in ',"\n\r'):  # a stranger's batch id may hold anything
        return '"' + text.replace('"', '""') + '"'
    return text


def events_json(events: Sequence[Event]) -> bytes:
    """A list of {at, kind, message, service, ...facts} as on the wire, less the facts that a clock measured."""
    entries = [
        {
            "at": e.at, "kind": e.kind, "message": e.message, "service": e.service,
            **{k: v for k, v in sorted(e.facts.items()) if k not in CLOCKED},
        }
        for e in events
    ]  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n"


def thresholds_json(thresholds: Mapping[str, float]) -> bytes:
    """In the published format, so that the file can be given to `selfheal monitor --thresholds`."""
    whole = {k: int(v) if float(v).is_integer() and k not in _REAL else v for k, v in sorted(thresholds.items())}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


_REAL = ("rollback_f1_drop", "rollback_acc_drop", "fidi_threshold", "heal_lr")  # 1.0 stays 1.0
