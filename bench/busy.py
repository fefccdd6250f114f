"""A process that keeps a core busy for a while whenever it is told to: what latency is beside it is not a heal's."""

from __future__ import annotations

import os
import subprocess
import sys
import time


class Busy:
    """As a context; burn is for one thread at a time. No thread: it would hold the lock that the probe needs."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._child = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Busy:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.communicate(timeout=10)

    def burn(self, seconds: float) -> None:
        """Returns when it is over. Raises RuntimeError: the process has ended."""
        if self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError("opened without pipes")
        print(seconds, file=self._child.stdin, flush=True)
        if not self._child.stdout.readline():
            raise RuntimeError("the process that burns has ended")


def main() -> None:
    """Burn for as many seconds as each line of stdin says, and say so."""
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        while time.perf_counter() < end:
            os.getpid()
        print("done", flush=True)


if __name__ == "__main__":
    main()
