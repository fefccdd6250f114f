"""How an act goes on while others do: in steps that look once and do not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from shared.errors import SelfhealError

Step = Iterator[str]
"""An act under way: each step of it looks once, does not wait, and gives what it waits for."""


class Missed(SelfhealError):
    """What an act waits for did not come in its time."""


class NotBegun(Missed):
    """Nothing has been done yet: the act can be tried again as it is."""


def until(condition: Callable[[], object], within_s: float, what: str) -> Step:
    """Steps until it holds. Raises Missed."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise Missed(f"not within {within_s:g} s: {what}")
        yield what


def wait(seconds: float, what: str) -> Step:
    """Steps for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield what


def aside(work: Callable[[], object], within_s: float, what: str) -> Step:
    """Steps while something that blocks runs in a thread of its own. Raises what it raises, Missed."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except (SelfhealError, OSError) as exc:
            failure.append(exc)

    thread = threading.Thread(target=run, name="chaos-aside", daemon=True)
    thread.start()
    yield from until(lambda: not thread.is_alive(), within_s, what)
    if failure:
        raise failure[0]


class Throttled:
    """A question that costs something, asked once a second."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask, self._next = ask, 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + 1.0
        return self._ask()
