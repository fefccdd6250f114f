"""What the healer publishes: adapters, events, dead letters. Pure."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

import msgspec

from healer.reference import Summary
from shared.adapters import Adapter, pack
from shared.errors import Refused
from shared.kafka import Out, Taken
from shared.records import Event, EventKind, HealRequest, encode
from shared.topics import MAX_RECORD_BYTES, topic_name

SERVICE = "healer"
REASON_CHARS, ID_CHARS = 1_000, 200  # what strangers wrote is cut before it is repeated


def adapter(
    made: Adapter,
    request: HealRequest,
    stage: Literal["pre-heal", "post-heal"],
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


def heal_failed(request: HealRequest, why: Refused, prefix: str) -> Out:
    """The event that ends the request without an adapter."""
    message = f"no heal of {request.base_version} for {request.request_id}: {str(why)[:REASON_CHARS]}"
    facts = {**_of(request), "base_version": request.base_version, "reason": str(why)[:REASON_CHARS]}
    return _event("heal-failed", request.at, message, facts, prefix)


def dead_letter(record: Taken, why: Refused, prefix: str) -> Out:
    """A request that cannot be read: its bytes unchanged, where it stood, and why. Bytes that no record of ours can
    hold (a compressed one may unfold to any size) stay where they are, and the reason says so."""
    value, reason = record.value, why.reason[:REASON_CHARS]
    if value is not None and len(value) > MAX_RECORD_BYTES:
        value, reason = None, f"{reason}; too large to be copied here"
    headers: dict[str, str | bytes] = {
        "reason": reason,
        **({"field": why.field} if why.field else {}),
        "source.topic": record.topic,
        "source.partition": str(record.partition),
        "source.offset": str(record.offset),
        "service": SERVICE,
    }
    return Out(topic_name("dead-letters", prefix), f"{record.topic}/{record.partition}/{record.offset}", value, headers)


def lifecycle(kind: Literal["service-started", "service-stopped"], slot: str, bundle: str, at: str, prefix: str) -> Out:
    """The service's own event. at: the wall clock."""
    facts = {
        "slot": slot, "pid": os.getpid(), "host": socket.gethostname(), "bundle": bundle,
        "version": version("selfheal"),
    }  # fmt: skip
    message = f"healer {slot} {kind.removeprefix('service-')} on {facts['host']}"
    return _event(kind, at, message, facts, prefix)


def _of(request: HealRequest) -> dict[str, Any]:
    return {"request_id": request.request_id, "batch_id": request.batch_id[:ID_CHARS], "policy": request.policy}


def _event(kind: EventKind, at: str, message: str, facts: dict[str, Any], prefix: str) -> Out:
    event = Event(at=at[:ID_CHARS], kind=kind, message=message, service=SERVICE, facts=facts)
    return Out(topic_name("events", prefix), SERVICE, encode(event))
