"""What a replay through a fresh pipeline led to: what its monitor decided, and what that was worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.text import Text

from selfheal.tail_lines import clean, event_style
from shared.kafka import Follower, Taken
from shared.records import Event, Metrics, decode, decode_event
from shared.topics import topic_name

QUIET_S = 10.0  # a batch whose labels never came stays unsettled: stop waiting when nothing moves any more
READ_S = 30.0
DECISIONS = frozenset({
    "alarm", "drift-detected", "drift-ended", "diagnosed", "heal-finished", "heal-failed", "adapter-activated",
    "adapter-rejected", "rolled-back",
})  # fmt: skip
SHOWN = 20


def settled(
    kafka: Mapping[str, Any], prefix: str, count: int, clock: Callable[[], float] = time.monotonic
) -> list[Metrics]:
    """The rows of a fresh pipeline once `count` of them are settled, or nothing came for QUIET_S."""
    rows: dict[str, Metrics] = {}
    moved = clock()
    with closing(Follower(kafka, [topic_name("metrics", prefix)], name="replay-metrics")) as follower:
        while sum(row.settled for row in rows.values()) < count and clock() - moved < QUIET_S:
            for record in follower.take(0.2):
                row = decode(Metrics, record.value)
                rows[row.batch_id], moved = row, clock()
    return sorted(rows.values(), key=lambda row: row.batch_idx)


def decisions(kafka: Mapping[str, Any], prefix: str) -> list[Event]:
    """The events of DECISIONS up to now, in the order of time; not that what was found before still holds."""
    records: list[Taken] = []
    until = time.monotonic() + READ_S
    with closing(Follower(kafka, [topic_name("events", prefix)], name="replay-events")) as follower:
        while not follower.caught_up and time.monotonic() < until:
            records += follower.take(0.2)
    records.sort(key=lambda r: (r.timestamp_ms, r.partition, r.offset))
    events = [decode_event(record.value) for record in records]
    return [event for event in events if event.kind in DECISIONS and not event.facts.get("active_fits")]


def tell(console: Console, prefix: str, rows: Sequence[Metrics], events: Sequence[Event]) -> None:
    """The decisions, a line each, then the batches as served beside the frozen network."""
    for event in events[:SHOWN]:
        line = Text(f"{event.kind:<18} ", style=event_style(event.kind, event.facts) or "bold")
        console.print(line.append(clean(event.message), style="default"), soft_wrap=True)
    if len(events) > SHOWN:
        all_of = f"selfheal tail events --prefix {prefix} --since beginning --until-idle 1"
        console.print(f"and {len(events) - SHOWN} more: {all_of}", soft_wrap=True)
    known = [r for r in rows if r.accuracy_healed is not None and r.accuracy_shadow is not None]
    console.print(f"{len(rows)} batches judged, {sum(r.settled for r in rows)} settled, {len(known)} with labels")
    if not known:
        return
    served, frozen = fmean(r.accuracy_healed or 0 for r in known), fmean(r.accuracy_shadow or 0 for r in known)
    text = f"mean accuracy {served:.3f} as served, {frozen:.3f} frozen ({served - frozen:+.3f})"
    costs = [(r.cost_healed, r.cost_shadow) for r in known if r.cost_healed is not None and r.cost_shadow is not None]
    if costs:
        paid, unpaid = (fmean(column) for column in zip(*costs, strict=True))
        text += f"; mean cost of a transaction {paid:.3f} as served, {unpaid:.3f} frozen ({paid - unpaid:+.3f})"
    console.print(f"{text}; {known[-1].next_version} active at the end", soft_wrap=True)
