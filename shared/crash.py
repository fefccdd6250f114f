"""Named places where a process can be made to die: for `selfheal chaos` and tests only.

SELFHEAL_CRASH_AT=NAME or NAME:K kills the process with SIGKILL at the K-th passing of that place (K: 1 when left out).
Nothing here does anything otherwise: a point that is not armed is one look at a variable.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from shared.errors import OperatorError
from shared.telemetry import epoch_ms

CRASH_ENV = "SELFHEAL_CRASH_AT"
CRASH_POINTS = (
    "session.after-fencing",
    "session.before-begin",
    "session.after-begin",
    "session.between-records",
    "session.after-produce",
    "session.after-offsets",
    "session.in-commit",
    "session.after-commit",
    "scorer.before-swap",
    "healer.before-fetch",
    "healer.after-fit",
    "healer.between-adapter-and-event",
    "monitor.before-state-read",
    "monitor.between-control-and-state",
    "monitor.after-state",
    "producer.between-batch-and-labels",
    "producer.before-flush",
)
SAID = "crash point reached:"  # begins the line on stderr that a dying process leaves: SAID NAME EPOCH_MS
# What was handed to Kafka's client has reached the broker by then: the harder case for those who come after.
_SENT_S = 0.05
_INTO_CALL_S = 0.003  # a commit takes 5 to 10 ms

_armed: str | None = None
_left = 0  # passings until it dies


class Topical(Protocol):
    """A record to publish."""

    @property
    def topic(self) -> str: ...


T = TypeVar("T", bound=Topical)


def arm(spec: str) -> None:
    """Of SELFHEAL_CRASH_AT; empty: nothing is armed. Raises OperatorError: no such point, no such count."""
    global _armed, _left
    name, _, count = spec.partition(":")
    if spec and (name not in CRASH_POINTS or not (count or "1").isdecimal() or int(count or 1) < 1):
        raise OperatorError(
            f"{CRASH_ENV}={spec!r}: write NAME or NAME:K, K from 1, NAME one of {', '.join(CRASH_POINTS)}"
        )
    _armed, _left = (name, int(count or 1)) if spec else (None, 0)


def crash_point(name: str) -> None:
    """Die here if this is the armed point and this its K-th passing."""
    if _armed is not None and _due(name):
        time.sleep(_SENT_S)
        _die(name)


def crash_soon(name: str) -> None:
    """The same, but a moment later: in the middle of the call that follows."""
    if _armed is not None and _due(name):
        timer = threading.Timer(_INTO_CALL_S, _die, [name])
        timer.daemon = True
        timer.start()


def crash_between(name: str, topic: str, outputs: Iterable[T]) -> Iterable[T]:
    """The outputs, with the point wherever records of the topic end: before a record of another, or after the last."""
    return outputs if _armed is None else _watched(name, topic, outputs)


def _watched(name: str, topic: str, outputs: Iterable[T]) -> Iterator[T]:
    before = ""
    for out in outputs:
        if before == topic != out.topic:
            crash_point(name)
        yield out
        before = out.topic
    if before == topic:
        crash_point(name)


def _due(name: str) -> bool:
    global _left
    if name != _armed:
        return False
    _left -= 1
    return _left == 0


def _die(name: str) -> None:
    os.write(2, f"{SAID} {name} {epoch_ms()}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
