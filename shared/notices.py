"""What every service says in the same words: dead letters, and that it started or stopped."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from typing import Any, Literal

from shared.errors import Refused
from shared.kafka import UNREADABLE, Out, Taken
from shared.records import Event, encode
from shared.topics import MAX_RECORD_BYTES

REASON_CHARS = 1_000  # what strangers wrote is cut before it is repeated


def dead_letter(topic: str, record: Taken, why: Refused, service: str) -> Out:
    """The bytes unchanged, where they came from, and why. Bytes that no record of ours can hold (a compressed message
    may unfold to any size) stay where they are, and the reason says so."""
    value, reason = record.value, why.reason[:REASON_CHARS]
    if value is None and UNREADABLE in record.headers:
        reason = f"cannot be unpacked: {record.headers[UNREADABLE].decode('utf-8', 'replace')}"[:REASON_CHARS]
    if value is not None and len(value) > MAX_RECORD_BYTES:
        value, reason = None, f"{reason}; too large to be copied here"
    headers: dict[str, str | bytes] = {
        "reason": reason.encode("utf-8", "replace"),
        **({"field": why.field.encode("utf-8", "replace")} if why.field else {}),
        "source.topic": record.topic,
        "source.partition": str(record.partition),
        "source.offset": str(record.offset),
        "service": service,
    }
    return Out(topic, f"{record.topic}/{record.partition}/{record.offset}", value, headers)


def lifecycle(
    kind: Literal["service-started", "service-stopped"], service: str, at: str, *, slot: str = "0", about: str = "",
    **facts: Any,
) -> Event:  # fmt: skip
    """A service's own event. at: the wall clock. about: what else the line says."""
    host = socket.gethostname()
    message = f"{service} {slot} {kind.removeprefix('service-')} on {host}{', ' + about if about else ''}"
    more = {"slot": slot, "pid": os.getpid(), "host": host, "version": version("selfheal"), **facts}
    return Event(at=at, kind=kind, message=message, service=service, facts=more)


def event_out(topic: str, event: Event) -> Out:
    """An events record: its key is the service."""
    return Out(topic, event.service, encode(event))
