"""Keeps service processes running: starts, restarts with a back-off, ends them in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from selfheal.child import Child
from selfheal.restarts import Verdict, verdict

LOOK_EVERY_S = 0.1
STOP_S = 10.0  # longest a service may take to finish its turn and say goodbye
Notice = Callable[[Child, int, Verdict], None]
"""Called from the watching thread with what ended, its exit code, and what happens next."""


class Supervisor:
    """Looks after children in a thread of its own. children: in the order in which they are to be ended, by service."""

    def __init__(self, children: Sequence[Child], on_end: Notice) -> None:
        self.children = list(children)
        self._on_end = on_end
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start every child that is not held back; does not wait until they are ready."""
        for child in self.children:
            if not child.held:
                child.launch()
        self._thread.start()

    def release(self) -> None:
        """Let those start that were held back: the watching thread does it at its next look."""
        for child in self.children:
            if child.held:
                child.restart_at, child.held = time.monotonic(), False

    def alive(self) -> bool:
        """Whether the watch is kept; false after stop."""
        return self._thread.is_alive()

    def stop(self, grace_s: float = STOP_S) -> list[str]:
        """End all, service by service; returns the names of those that had to be killed. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        killed = []
        for service in dict.fromkeys(c.service for c in self.children):
            group = [c for c in self.children if c.service == service]
            for child in group:
                child.terminate()
            deadline = time.monotonic() + grace_s
            killed += [c.name for c in group if not c.join(deadline)]
        return killed

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            for child in self.children:
                self._look(child)

    def _look(self, child: Child) -> None:
        if child.restart_at is not None:
            if time.monotonic() >= child.restart_at:
                child.launch()
            return
        code = child.poll()
        if code is None:
            child.bound_log()
            return
        next_step = verdict(code, child.ran_s(), child.attempt)
        child.attempt = next_step.attempt
        if next_step.after_s is not None:
            child.restart_at = time.monotonic() + next_step.after_s
        else:
            child.over = True
        self._on_end(child, code, next_step)
