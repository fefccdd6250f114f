"""The producer's own events: started and stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.kafka import Out
from shared.notices import event_out, lifecycle
from shared.telemetry import wall_clock


def started(topic: str | None, slot: str, facts: Mapping[str, Any]) -> list[Out]:
    """service-started; nothing without a topic."""
    event = lifecycle("service-started", "producer", wall_clock(), slot=slot, **facts)
    return [] if topic is None else [event_out(topic, event)]


def stopped(topic: str | None, slot: str, facts: Mapping[str, Any]) -> list[Out]:
    """service-stopped, of a clean stop; nothing without a topic."""
    event = lifecycle("service-stopped", "producer", wall_clock(), slot=slot, **facts)
    return [] if topic is None else [event_out(topic, event)]
