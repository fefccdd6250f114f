"""The producer's own events: started and stopped."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from shared.kafka import Out
from shared.records import Event, encode
from shared.telemetry import wall_clock


def started(topic: str | None, slot: str, facts: Mapping[str, Any]) -> list[Out]:
    """service-started; nothing without a topic."""
    host = socket.gethostname()
    more = {"slot": slot, "pid": os.getpid(), "host": host, "version": version("selfheal"), **facts}
    return _event(topic, "service-started", f"producer {slot} started on {host}", more)


def stopped(topic: str | None, slot: str, facts: Mapping[str, Any]) -> list[Out]:
    """service-stopped, of a clean stop; nothing without a topic."""
    return _event(topic, "service-stopped", f"producer {slot} stopped", {"slot": slot, "pid": os.getpid(), **facts})


def _event(topic: str | None, kind: str, message: str, facts: dict[str, Any]) -> list[Out]:
    if topic is None:
        return []
    event = Event(at=wall_clock(), kind=kind, message=message, service="producer", facts=facts)
    return [Out(topic, "producer", encode(event))]
