"""Batches at a steady rate, on a schedule fixed by the first: what one batch loses the next ones make good."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import OperatorError

_LOOK_S = 0.1  # longest time in which a request to stop goes unseen


def check_rate(rate: float | None) -> None:
    """Raises OperatorError unless it is None or a positive number of batches a second."""
    if rate is not None and not 0 < rate < float("inf"):
        raise OperatorError(f"rate {rate:g}: give more than 0 batches/s, or leave it out")


class Pace:
    """rate: batches a second; None: as fast as it goes. now, sleep: the clock, in seconds."""

    def __init__(
        self, rate: float | None, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        check_rate(rate)
        self._rate, self._now, self._sleep = rate, now, sleep
        self._start: float | None = None

    def wait(self, k: int, stop: Callable[[], bool]) -> bool:
        """Until batch k is due; the first one asked for is due at once. False: asked to stop."""
        if self._start is None:  # the first batch may have taken its source long to find
            self._start = self._now() - (k - 1) / (self._rate or 1)
        due = self._start if self._rate is None else self._start + (k - 1) / self._rate
        while not stop():
            left = due - self._now()
            if left <= 0:
                return True
            self._sleep(min(left, _LOOK_S))
        return False
