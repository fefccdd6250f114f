"""What the process of a service is before its loop runs: one BLAS thread, logs, signals, and never an orphan."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

SUPERVISED_ENV = "SELFHEAL_SUPERVISED"  # set by selfheal/local.py: stdin is a pipe that ends with the parent
ORPHAN_GRACE_S = 5.0  # from the parent's death to our own, when a clean stop takes too long
INTERRUPTED = 130
# With two threads a forward pass of 64 hidden units takes up to 65 times as long (performance.md).
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Stop:
    """Becomes true when somebody asked this process to end. Handed to a service as its `stop`."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.interrupted = False  # by Ctrl-C, which has an exit code of its own

    def __call__(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Sleep that ends at once when asked to stop; whether it was."""
        return self._asked.wait(seconds)


def one_thread() -> None:
    """Must run before NumPy or torch is loaded. What the operator has set stays."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")


def stop_on_signals() -> Stop:
    """SIGTERM, SIGINT and SIGHUP ask for a clean stop; a second Ctrl-C ends the process there and then."""
    stop = Stop()

    def asked(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if stop.interrupted:
                os._exit(INTERRUPTED)
            stop.interrupted = True
        stop.ask()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, asked)
    return stop


def end_on_signals() -> None:
    """For commands that are no service: SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that what was
    started is ended. Ctrl-C does also where a shell script started us with `&`: its children ignore SIGINT, and Python
    leaves it so."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def end_with_parent(stop: Stop) -> None:
    """Stop when the supervisor is gone, however it died: the kernel closes its end of our stdin.

    Works the same on Linux and macOS, where there is no PR_SET_PDEATHSIG. Does nothing for a service that
    was started by hand.
    """
    if os.environ.pop(SUPERVISED_ENV, "") != "1":
        return

    def watch() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        stop.ask()
        threading.Event().wait(ORPHAN_GRACE_S)  # the broker may be gone too, and a commit would wait for it
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def settle() -> None:
    """After all imports: keep the collector off what lives for ever (+28% and more on the hot path)."""
    gc.collect()
    gc.freeze()
