"""Ends the process when a call into Kafka's client does not come back, long after its own time-out, or its loop stands
still.

Seen with librdkafka 2.16 (send_offsets_to_transaction, after the only broker came back and the client had lost it):
a call waits for an answer that nobody will give, without a limit, and no exception can be raised into it. What was
open is settled by the next start, as after a kill.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE_S = 10.0  # beyond the call's own time-out
LOOK_S = 1.0
EXIT_CODE = 3  # of shared.errors.Fatal: a fresh process carries on
_log = logging.getLogger("kafka")


class Watchdog:
    """One thread for all calls of a process, begun with the first. It counts the time in which this process runs:
    one that was stopped for a minute has not waited for an answer meanwhile."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._left: dict[int, tuple[float, str]] = {}  # seconds until it is overdue, and what to say then, by call
        self._looked: dict[int, float] = {}  # seconds it has been seen under way, by call; of the thread alone
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, timeout_s: float) -> Iterator[None]:
        """Around a call that promises to come back within timeout_s."""
        number = self._begin_to_watch(timeout_s, f"a call has not come back {GRACE_S:g} s after its time-out")
        try:
            yield
        finally:
            del self._left[number]

    def kept(self, stop: Callable[[], bool], within_s: float) -> Callable[[], bool]:
        """The same question, which from now on must be asked again within so many seconds: whoever asks it once a turn
        and does not come round hangs in a call that nobody thought of."""
        what = f"a loop has not come round for {within_s + GRACE_S:g} s"
        current = self._begin_to_watch(within_s, what)

        def asked() -> bool:
            nonlocal current
            following = self._begin_to_watch(within_s, what)
            del self._left[current]
            current = following
            return stop()

        return asked

    def _begin_to_watch(self, for_s: float, what: str) -> int:
        if self._thread is None:
            self._start()
        number = next(self._numbers)
        self._left[number] = for_s + GRACE_S, what
        return number

    def _start(self) -> None:
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="kafka-watchdog", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        look = threading.Event()
        while not look.wait(LOOK_S):
            under_way = dict(self._left)
            self._looked = {number: self._looked.get(number, 0.0) + LOOK_S for number in under_way}
            for number, (limit_s, what) in under_way.items():
                if self._looked[number] > limit_s:
                    _log.critical("%s: this process ends", what)
                    os._exit(EXIT_CODE)


WATCHDOG = Watchdog()
