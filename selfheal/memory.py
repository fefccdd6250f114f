"""Gives back what the C library keeps of freed memory.

Kafka's client reads ahead in threads of its own. When a machine stood still for a moment, or a backlog was worked off,
the memory of queues that were full once would stay with the process for ever: glibc returns the end of a heap alone.
"""

from __future__ import annotations

import ctypes
import threading

EVERY_S = 60.0


def give_back() -> bool:
    """Return the free pages inside all heaps; whether the C library can do that (glibc alone)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)  # outside Python's lock
    return True


def give_back_now_and_then(every_s: float = EVERY_S) -> None:
    """In a thread, until the process ends. Nothing happens where the C library cannot."""

    def work() -> None:
        pause = threading.Event()
        while not pause.wait(every_s) and give_back():
            pass

    threading.Thread(target=work, name="give-back-memory", daemon=True).start()
