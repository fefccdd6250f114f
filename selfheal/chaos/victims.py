"""The processes that are to suffer, and what can be done to each."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from selfheal.chaos.watch import Watch
from selfheal.child import Child
from shared.crash import CRASH_ENV, SAID


class Victim:
    """One supervised service. busy: something is being done to it. It comes back by the supervisor alone."""

    def __init__(self, child: Child, watch: Watch) -> None:
        self.child, self._watch = child, watch
        self.busy = False

    @property
    def name(self) -> str:
        return self.child.name

    def ready(self) -> bool:
        """It runs and has said so."""
        return self.child.pid in self._watch.started

    def signal(self, number: int) -> None:
        """Send a signal, if it runs. A kill of ours is no reason for the supervisor to hold it back longer."""
        self.child.attempt = 0
        if (pid := self.child.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def starts_in_s(self) -> float:
        """Seconds until the supervisor starts it again; 0: it runs, or starts now, or is not to start."""
        at = self.child.restart_at
        return 0.0 if at is None or self.child.pid is not None else max(0.0, at - time.monotonic())

    def arm(self, spec: str) -> None:
        """For the next start; empty: nothing. Deaths by our hand in a row are no reason to hold it back longer."""
        self.child.attempt = min(self.child.attempt, 1)  # not 0: an end is then taken for one of a first start
        self.child.set_env(CRASH_ENV, spec)

    def state(self) -> str:
        """For a person who has to find out why nothing happens."""
        if self.child.pid is None:
            return f"ended with exit code {self.child.exit_code}"
        last = self.child.log_tail().rpartition("\n")[2]
        return f"{'runs' if self.ready() else 'begins'}, and said last: {last}"

    def revive(self) -> None:
        """Have the supervisor start it again after an end that it takes for good."""
        self.child.attempt = 1  # it worked before: a broker that is away now is no reason to give up (restarts.py)
        self.child.restart_at, self.child.over = time.monotonic(), False

    def crashed_at(self, point: str, since_ms: int) -> int | None:
        """When (epoch ms) its log says that it died at this point, after since_ms; None where it does not."""
        for log in (self.child.log, self.child.log.with_suffix(".log.1")):
            with suppress(FileNotFoundError):
                for line in reversed(log.read_text("utf-8", "replace").splitlines()):
                    said, _, at = line.partition(f"{SAID} {point} ")
                    if at.isdecimal() and not said and int(at) >= since_ms:
                        return int(at)
        return None
