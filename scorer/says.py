"""What the scorer says of the adapters that it cannot use."""

from __future__ import annotations

import os

from scorer.catalog import Problem
from shared.kafka import Out
from shared.notices import event_out
from shared.records import Event

SERVICE = "scorer"


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
    facts = {**facts, "pid": os.getpid()}
    return event_out(topic, Event(at=at, kind=kind, message=message, service=SERVICE, facts=facts))
