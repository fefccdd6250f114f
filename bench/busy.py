"""A process that keeps a core busy for a while whenever it is told to: what a heal costs beside it, is the heal's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import TracebackType


class Busy:
    """As a context; burn is for one thread at a time."""

    def __enter__(self) -> Busy:
        # Not a thread: it would hold the lock that the probe needs.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.busy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.terminate()
        self._child.wait(10)

    def burn(self, seconds: float) -> None:
        """Returns when it is over."""
        if self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError("not started")
        print(seconds, file=self._child.stdin, flush=True)
        self._child.stdout.readline()


def main() -> None:
    """Burn for as many seconds as each line of stdin says, and say so."""
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        while time.perf_counter() < end:
            os.getpid()
        print("done", flush=True)


if __name__ == "__main__":
    main()
