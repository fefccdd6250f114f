"""One service as a process of its own: its command line, its log, its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from selfheal.process import ONE_THREAD, SUPERVISED_ENV

LOG_MAX_BYTES = 8 * 1024 * 1024
TAIL_LINES = 15


class Child:
    """`selfheal ARGS` in a session of its own, so that Ctrl-C in the terminal reaches only us, who end it in order.

    Its stdin is a pipe that we never write to: when we are gone, it sees the end of it and stops (process.py).
    Started and looked after by one thread at a time.
    """

    def __init__(self, service: str, slot: str, args: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.service, self.slot, self.args, self.log = service, slot, args, log
        self.attempt = 0  # restarts in a row
        self.restart_at: float | None = None  # monotonic; None: nothing is due
        self.exit_code: int | None = None  # of its last run, None while it runs
        self.over = False  # it ended and is not started again
        self.held = False  # it is not to start yet
        self._env = {**dict.fromkeys(ONE_THREAD, "1"), **env, SUPERVISED_ENV: "1", "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @property
    def name(self) -> str:
        return f"{self.service}-{self.slot}"

    @property
    def pid(self) -> int | None:
        """Of the running process, None when there is none."""
        return self._process.pid if self._process is not None and self.exit_code is None else None

    def twin(self, log: Path) -> Child:
        """Another process with the same name and settings, as somebody may start by mistake."""
        return Child(self.service, self.slot, self.args, log, self._env)

    def set_env(self, name: str, value: str) -> None:
        """For the next start."""
        self._env[name] = value

    def ran_s(self) -> float:
        """Seconds since its last start."""
        return time.monotonic() - self._started

    def launch(self) -> None:
        """Start it; does not wait. The first time, what earlier pipelines left in the log goes."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self._process is None:
            self.log.unlink(missing_ok=True)
        self._close_stdin()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), env=self._env, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self._started, self.exit_code, self.restart_at = time.monotonic(), None, None

    def _command(self) -> list[str]:
        # -P: a folder named `shared` or `monitor` where the operator happens to stand is not ours.
        return [sys.executable, "-P", "-m", "selfheal", *self.args]

    def poll(self) -> int | None:
        """The exit code if it ended since the last call, else None."""
        if self._process is None or self.exit_code is not None:
            return None
        self.exit_code = self._process.poll()
        return self.exit_code

    def terminate(self) -> None:
        """Ask it to end; does not wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def join(self, deadline: float) -> bool:
        """Wait until `deadline` (monotonic), then kill. Whether it ended without being killed."""
        if self._process is None:
            return True
        try:
            self.exit_code = self._process.wait(max(0.0, deadline - time.monotonic()))
            return True
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()
            return False
        finally:
            self._close_stdin()

    def _close_stdin(self) -> None:
        """Give the pipe back; an earlier run's, or at the end."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def bound_log(self) -> None:
        """Keep the log at two files of at most LOG_MAX_BYTES. The child appends, so it goes on in the emptied file."""
        if self._process is not None and self.log.stat().st_size > LOG_MAX_BYTES:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def log_tail(self) -> str:
        """The last lines it wrote."""
        try:
            with self.log.open(encoding="utf-8", errors="replace") as log:
                return "".join(deque(log, TAIL_LINES)).rstrip()
        except FileNotFoundError:
            return ""
