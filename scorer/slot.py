"""The adapters in use: a watcher thread follows the adapters and control topics, the loop reads a View once a turn.

The watcher replaces the view whole, so no turn ever sees half a swap. An adapter that nobody names is looked into only
when the watcher has nothing else to do: most are never served, and to unpack each took time from the loop. A watcher
that ends, or is not heard of for STUCK_S, ends the scorer: a fresh process is better than one that serves an adapter
which was rolled back long ago.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scorer.catalog import Catalog, Problem, View
from shared.crash import crash_point
from shared.errors import Fatal, OperatorError, SelfhealError
from shared.kafka import Follower, Taken, closing
from shared.telemetry import get_logger
from shared.topics import topic_name

STUCK_S = 30.0
_POLL_S = 0.5
_END_S = 10.0
_LOOK_S = 0.2
_PROBLEMS_MAX = 1_000
_log = get_logger("scorer")


class Slot:
    """name: of its own Kafka client. start_s: longest that reading both topics to their end may stand still."""

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, name: str, catalog: Catalog, start_s: float = 60.0
    ) -> None:
        self._kafka, self._name, self._catalog, self._start_s = kafka, name, catalog, start_s
        self._adapters, self._control = topic_name("adapters", prefix), topic_name("control", prefix)
        self._changed = threading.Condition()  # its lock also guards the catalog
        self._view = catalog.view()
        self._ready = False
        self._problems: deque[Problem] = deque()
        self._failure: SelfhealError | None = None
        self._beat = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="adapter-watcher", daemon=True)

    def start(self, stop: Callable[[], bool]) -> bool:
        """Begin to watch; wait until both topics were read to their end. False when told to stop before that.
        Raises Fatal, OperatorError."""
        self._thread.start()
        return self._wait(lambda: self._ready, None, stop)

    def view(self) -> View:
        """What to score with now. Raises Fatal where the watcher is no longer to be trusted."""
        self._check()
        return self._view

    def wait_for(self, version: str, until: float, stop: Callable[[], bool]) -> bool:
        """Wait until the version is loaded or refused, or the monotonic clock says `until`. False when told to stop.
        One that is here and was not looked into yet is loaded now. Raises Fatal."""
        return self._wait(lambda: self._settled(version), until, stop)

    def problems(self) -> list[Problem]:
        """What was refused since the last call; each is handed out once."""
        found = []
        while self._problems:
            found.append(self._problems.popleft())
        return found

    def close(self) -> None:
        """End the watcher."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)

    def _check(self) -> None:
        if isinstance(self._failure, OperatorError):
            raise self._failure
        if self._failure is not None:
            raise Fatal(f"the watcher of adapters ended: {self._failure}") from self._failure
        if not self._thread.is_alive():
            raise Fatal("the watcher of adapters ended")
        if self._ready and time.monotonic() - self._beat > STUCK_S:
            raise Fatal(f"the watcher of adapters is stuck: no sign of life for {STUCK_S:g} s")

    def _wait(self, reached: Callable[[], bool], until: float | None, stop: Callable[[], bool]) -> bool:
        with self._changed:
            while not reached():
                self._check()
                if stop():
                    return False
                left = _LOOK_S if until is None else until - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(min(_LOOK_S, left))
        return True

    def _settled(self, version: str) -> bool:
        with self._changed:
            if version not in self._view.loaded and version not in self._view.refused:
                self._note(self._catalog.look_into(version))
                self._show(self._ready)
            return version in self._view.loaded or version in self._view.refused

    def _watch(self) -> None:
        try:
            with closing(Follower(self._kafka, [self._adapters, self._control], name=self._name)) as follower:
                for record in follower.catch_up(self._start_s):
                    self._fold([record])
                    if self._ending.is_set():
                        return
                self._show(ready=True)
                while not self._ending.is_set():
                    if records := follower.take(_POLL_S):
                        self._fold(records)
                        self._show(ready=True)
                    elif self._catalog.unread():
                        with self._changed:
                            self._note(self._catalog.look_at_one())
                            self._show(ready=True)
                    self._beat = time.monotonic()
        except SelfhealError as exc:
            self._failure = exc
        finally:
            with self._changed:
                self._changed.notify_all()

    def _fold(self, records: Iterable[Taken]) -> None:
        for record in records:
            with self._changed:
                fold = self._catalog.adapter if record.topic == self._adapters else self._catalog.control
                self._note(fold(record))
            self._beat = time.monotonic()

    def _note(self, problem: Problem | None) -> None:
        if problem is None:
            return
        _log.warning("record_refused", record=problem.record, version=problem.version, reason=problem.reason)
        history = not self._ready and problem.field == "bundle"  # adapters of a bundle that ours replaced
        if not history and len(self._problems) < _PROBLEMS_MAX:
            self._problems.append(problem)

    def _show(self, ready: bool) -> None:
        with self._changed:
            view = self._catalog.view()
            if view.active.version != self._view.active.version:
                crash_point("scorer.before-swap")
                _log.info("adapter_in_use", version=view.active.version, before=self._view.active.version)
            self._view, self._ready = view, ready
            self._changed.notify_all()
