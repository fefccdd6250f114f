"""What the scorer publishes besides predictions: its events, and a dead letter for what it cannot use."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version

from scorer.catalog import Problem
from shared.errors import Refused
from shared.kafka import Out, Taken
from shared.records import Event, encode
from shared.topics import MAX_RECORD_BYTES

SERVICE = "scorer"
_REASON_CHARS = 1_000


def dead_letter(topic: str, record: Taken, why: Refused) -> Out:
    """The bytes unchanged, where they came from, and why. Bytes that no record of ours can hold (a compressed message
    may unfold to any size) stay where they are, and the reason says so."""
    value, reason = record.value, why.reason[:_REASON_CHARS]
    if value is not None and len(value) > MAX_RECORD_BYTES:
        value, reason = None, f"{reason}; too large to be copied here"
    headers: dict[str, str | bytes] = {
        "reason": reason.encode("utf-8", "replace"),
        **({"field": why.field.encode("utf-8", "replace")} if why.field else {}),
        "source.topic": record.topic,
        "source.partition": str(record.partition),
        "source.offset": str(record.offset),
        "service": SERVICE,
    }
    return Out(topic, f"{record.topic}/{record.partition}/{record.offset}", value, headers)


def started(topic: str, at: str, slot: str, bundle: str) -> Out:
    """service-started."""
    host, program = socket.gethostname(), version("selfheal")
    message = f"scorer {slot} started on {host}, bundle {bundle[:12]}"
    return _event(topic, at, "service-started", message, slot=slot, host=host, bundle=bundle, version=program)


def stopped(topic: str, at: str, slot: str) -> Out:
    """service-stopped, of a clean stop."""
    return _event(topic, at, "service-stopped", f"scorer {slot} stopped", slot=slot)


def refused(topic: str, at: str, slot: str, problem: Problem) -> Out:
    """adapter-rejected, or record-refused where no adapter is lost by it. Every scorer says it for itself: whether an
    adapter can be used depends on the bundle that it was started with."""
    facts = {"record": problem.record, "reason": problem.reason, "field": problem.field, "slot": slot}
    if problem.version is None:
        message = f"scorer {slot} passed over record {problem.record}: {problem.reason}"
        return _event(topic, at, "record-refused", message, **facts)
    message = f"scorer {slot} rejected adapter {problem.version}: {problem.reason}"
    return _event(topic, at, "adapter-rejected", message, version=problem.version, **facts)


def _event(topic: str, at: str, kind: str, message: str, **facts: object) -> Out:
    event = Event(at=at, kind=kind, message=message, service=SERVICE, facts={**facts, "pid": os.getpid()})
    return Out(topic, SERVICE, encode(event))
