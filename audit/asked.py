"""What the monitor asked for and what its rows say was done: each beside its events. Part of rule `causes`."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from audit.events import Events
from audit.history import Order
from audit.log import Log, settled, truncated
from audit.metrics import Metrics
from audit.network import FIRST_VERSION
from audit.report import Report

MONITOR = "monitor"
OWN_ID = re.compile("(heal|diagnose|learn)-[0-9]+")  # of requests that the monitor makes


class Sides(NamedTuple):
    """All that causes are looked for in. orders: the control topic."""

    log: Log
    report: Report
    events: Events
    orders: list[Order]
    metrics: Metrics


def thresholds(on: Sides) -> list[dict[str, float]]:
    """All that were ever in force."""
    return [dict(o.values) for o in on.orders if o.setting == "thresholds" and o.values]


def requests(on: Sides) -> None:
    """Every request of the monitor has its event and its reason in the row, every heal-requested its request."""
    asked = {a.request_id: a for a in on.events.asked if a.request_id is not None}
    told = set()
    for said in on.events.of("heal-requested", service=MONITOR):
        request, where = said.text("request_id"), said.record.where
        told.add(request)
        known = settled(on.log, "events", said.record) and not truncated(on.log, "heal-requests")
        on.report.check("causes", request in asked or not known, where, f"{request} was never put on heal-requests")
        row = on.metrics.rows.get(int(said.number("batch_idx") or 0))
        body = asked[request].body if request in asked else None
        if request is None or row is None or body is None or body.get("policy") != "reference":
            continue
        conflicts, z = row.body["n_conflicts"], row.body["z_score"]
        reason = [
            limits for limits in thresholds(on)
            if conflicts >= limits.get("conflict_min", 0) or (z is not None and z > limits.get("fidi_threshold", 0))
        ]  # fmt: skip
        why = f"{request} was asked for with {conflicts} conflicts and z {z}, below every threshold"
        on.report.check("causes", bool(reason), where, why)
        why = on.metrics.named_wrongly(body)
        on.report.check("causes", not why, asked[request].record.where, f"{request} names {why}")
    for request, each in asked.items():
        body = each.body or {}
        # A person may ask too, under an id of his own; the monitor's name its batch.
        mine = OWN_ID.fullmatch(request) is not None
        if mine and settled(on.log, "heal-requests", each.record) and not truncated(on.log, "events"):
            why = f"{request} of batch {body.get('batch_id')} without its event heal-requested"
            on.report.check("causes", request in told, each.record.where, why)


def rows(on: Sides) -> None:
    """What a settled row says was done has its event."""
    by_batch: Counter[tuple[str, str]] = Counter()
    for said in on.events.all:
        if said.service == MONITOR or said.kind == "heal-failed":
            by_batch[said.kind, str(said.text("batch_id"))] += 1
    needs = {
        "heal": "adapter-activated", "heal+rollback": "adapter-activated", "heal-failed": "heal-failed",
        "rollback": "rolled-back",
    }  # fmt: skip
    last: dict[str, str | None] = {o.batch_id: o.version for o in on.orders if o.setting == "active" and o.batch_id}
    known = {FIRST_VERSION, *(o.version for o in on.orders)}
    forgotten = truncated(on.log, "events")
    for row in on.metrics.rows.values():
        if not row.body["settled"] or forgotten or "guarded" in on.events.policies:
            continue
        kind = needs.get(str(row.body["action"]))
        if kind is not None:
            why = f"batch {row.batch_id}: action {row.body['action']}, and no event {kind} about it"
            on.report.check("causes", by_batch[kind, row.batch_id] > 0, row.where, why)
        if row.body["rolled_back"]:
            why = f"batch {row.batch_id}: rolled back, and no event rolled-back about it"
            on.report.check("causes", by_batch["rolled-back", row.batch_id] > 0, row.where, why)
        after, want = row.body["next_version"], last.get(row.batch_id)
        if want is not None and kind is not None:
            why = f"batch {row.batch_id}: next_version {after}, its last control record says {want}"
            on.report.check("causes", after == want, row.where, why)
        else:
            why = f"batch {row.batch_id}: next_version {after} was never made active"
            on.report.check("causes", after in known, row.where, why)
