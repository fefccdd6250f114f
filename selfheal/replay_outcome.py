"""What a replay through a fresh pipeline led to: what its monitor decided, and what that was worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from statistics import fmean
from typing import Any

from rich.console import Console

from monitor.export import Run
from selfheal.view import event_line
from shared.errors import Refused
from shared.kafka import Follower
from shared.records import Metrics, decode
from shared.topics import topic_name

QUIET_S = 10.0  # a batch whose labels never came stays unsettled: stop waiting when nothing moves any more
SHOWN = 20


def await_settled(
    kafka: Mapping[str, Any], prefix: str, count: int, clock: Callable[[], float] = time.monotonic
) -> None:
    """Until `count` rows of a fresh pipeline are settled, or nothing came for QUIET_S."""
    settled: set[str] = set()
    moved = clock()
    with closing(Follower(kafka, [topic_name("metrics", prefix)], name="replay-metrics")) as follower:
        while len(settled) < count and clock() - moved < QUIET_S:
            for record in follower.take(0.2):
                moved = clock()
                try:
                    row = decode(Metrics, record.value)
                except Refused:  # a stranger's
                    continue
                if row.settled:
                    settled.add(row.batch_id)


def tell(console: Console, prefix: str, run: Run) -> None:
    """What was decided, a line each, then the batches as served beside the frozen network. That something still holds
    is no news, and that a question was asked is not either."""
    events = [e for e in run.events if e.kind != "heal-requested" and not e.facts.get("active_fits")]
    for event in events[:SHOWN]:
        console.print(event_line(event), soft_wrap=True)
    if len(events) > SHOWN:
        all_of = f"selfheal tail events --prefix {prefix} --since beginning --until-idle 1"
        console.print(f"and {len(events) - SHOWN} more: {all_of}", soft_wrap=True)
    known = [r for r in run.rows if r.accuracy_healed is not None and r.accuracy_shadow is not None]
    console.print(
        f"{len(run.rows)} batches judged, {sum(r.settled for r in run.rows)} settled, {len(known)} with labels"
    )
    if not known:
        return
    served, frozen = fmean(r.accuracy_healed or 0 for r in known), fmean(r.accuracy_shadow or 0 for r in known)
    paid, unpaid = fmean(r.cost_healed or 0 for r in known), fmean(r.cost_shadow or 0 for r in known)
    console.print(
        f"mean accuracy {served:.3f} as served, {frozen:.3f} frozen ({served - frozen:+.3f}); mean cost of a "
        f"transaction {paid:.3f} as served, {unpaid:.3f} frozen ({paid - unpaid:+.3f}); {run.active} active at the end",
        soft_wrap=True,
    )
