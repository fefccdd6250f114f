"""Stands between us and one JVM, and ends it when we are gone, even by SIGKILL.

Run as a script, ``python -I -S broker_guard.py SPEC``, in a session of its own, so that Ctrl-C reaches the
services first. It imports nothing of ours: it has to be small and start fast. It waits for the first of

- the JVM ends by itself;
- its stdin reaches end of file: the parent closed it, or died and the kernel did;
- its parent is another process than at the start (a forked child may keep that stdin open);
- SIGTERM.

Then it asks the JVM to end, kills it after grace_s, and exits with the JVM's code. Should the guard itself be
killed, Linux kills the JVM (PR_SET_PDEATHSIG). That is tied to the thread that starts the JVM: here the only one.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypedDict

PR_SET_PDEATHSIG = 1
LOOK_EVERY_S = 0.2
ENDED_BY_SIGTERM = 143  # what a JVM exits with after its shutdown hooks ran


class Spec(TypedDict):
    """argv[1], as JSON."""

    command: list[str]
    cwd: str
    grace_s: float  # from asking the JVM to end to killing it
    state: str  # removed before the JVM is asked to end, so that nobody attaches to a dying broker
    lock_fd: int  # inherited and passed on: held for exactly as long as any of us lives
    train: str | None  # what the JVM writes at its end, to be put in place as `archive`
    archive: str


def main(spec: Spec) -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    jvm = subprocess.Popen(
        spec["command"],
        cwd=spec["cwd"],
        stdin=subprocess.DEVNULL,
        pass_fds=[spec["lock_fd"]],
        preexec_fn=_die_with_guard(os.getpid()),
    )
    while jvm.poll() is None and not stopping and os.getppid() == parent:
        if select.select([0], [], [], LOOK_EVERY_S)[0] and not os.read(0, 1):
            break
    if jvm.poll() is None:
        with suppress(FileNotFoundError):
            os.unlink(spec["state"])
        jvm.terminate()
    try:
        code = jvm.wait(spec["grace_s"])
    except subprocess.TimeoutExpired:
        jvm.kill()
        code = jvm.wait()
    if spec["train"] is not None:
        _adopt(spec["train"], spec["archive"], whole=code == ENDED_BY_SIGTERM)
    return code & 0xFF


def _die_with_guard(guard: int) -> Callable[[], None] | None:
    """What the JVM's process does before it becomes one. Loaded here: importing after fork is not safe."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it died before we could ask
            os._exit(1)

    return ask


def _adopt(fresh: str, archive: str, *, whole: bool) -> None:
    """Put a freshly written archive in its place, if the JVM had the time to write it whole."""
    part = f"{archive}.{os.getpid()}.part"
    with suppress(OSError):  # no archive only means slower starts
        if whole:
            shutil.copyfile(fresh, part)
            os.replace(part, archive)
    for leftover in (fresh, part):
        with suppress(OSError):
            os.unlink(leftover)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
