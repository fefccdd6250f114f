"""What the healer publishes: adapters, and how each request ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from healer.guarded import Outcome
from healer.reference import Summary
from shared.adapters import Adapter, pack
from shared.errors import Refused
from shared.kafka import Out
from shared.notices import REASON_CHARS, event_out
from shared.records import Event, EventKind, HealRequest
from shared.topics import topic_name

SERVICE = "healer"
ID_CHARS = 200  # what strangers wrote is cut before it is repeated


def adapter(
    made: Adapter,
    request: HealRequest,
    stage: Literal["pre-heal", "post-heal", "candidate"],
    facts: Mapping[str, object],
    prefix: str,
) -> Out:
    """The registry entry; its headers carry the lineage."""
    value, headers = pack(made, request=request.request_id, stage=stage, summary=facts, at=request.at[:ID_CHARS])
    return Out(topic_name("adapters", prefix), made.version, value, headers)


def heal_finished(request: HealRequest, pre: str, post: str, how: Summary, took_s: float, prefix: str) -> Out:
    """The event that the monitor decides by: every field of Summary, and the versions."""
    facts = {
        **_of(request), "base_version": request.base_version, "pre_version": pre, "post_version": post,
        **msgspec.structs.asdict(how), "took_s": round(took_s, 4),
    }  # fmt: skip
    if how.accuracy_before is None or how.accuracy_after is None or how.f1_before is None or how.f1_after is None:
        judged = "without labels"
    else:
        judged = (
            f"{how.labelled} labelled: accuracy {how.accuracy_before:.3f} -> {how.accuracy_after:.3f}, "
            f"F1 {how.f1_before:.3f} -> {how.f1_after:.3f}"
        )
    return _event(
        "heal-finished",
        request.at,
        f"{post} made from {request.base_version} on {how.rows} rows, {judged}",
        facts,
        prefix,
    )


def answered(request: HealRequest, outcome: Outcome, took_s: float, prefix: str) -> list[Out]:
    """Of policy guarded: the adapter where there is one, then the event."""
    facts = {
        **_of(request), "base_version": request.base_version, **outcome.facts, "took_s": round(took_s, 4),
    }  # fmt: skip
    event = _event(outcome.kind, request.at, outcome.message, facts, prefix)
    if outcome.adapter is None:
        return [event]
    return [adapter(outcome.adapter, request, outcome.stage, outcome.facts, prefix), event]


def heal_failed(request: HealRequest, why: Refused, prefix: str) -> Out:
    """The event that ends the request without an adapter."""
    message = f"no heal of {request.base_version} for {request.request_id}: {str(why)[:REASON_CHARS]}"
    facts = {**_of(request), "base_version": request.base_version, "reason": str(why)[:REASON_CHARS]}
    return _event("heal-failed", request.at, message, facts, prefix)


def _of(request: HealRequest) -> dict[str, Any]:
    return {"request_id": request.request_id, "batch_id": request.batch_id[:ID_CHARS], "policy": request.policy}


def _event(kind: EventKind, at: str, message: str, facts: dict[str, Any], prefix: str) -> Out:
    event = Event(at=at[:ID_CHARS], kind=kind, message=message, service=SERVICE, facts=facts)
    return event_out(topic_name("events", prefix), event)
