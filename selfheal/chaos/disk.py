"""A disk of our own for a broker's data, which can be made full: a tmpfs that nobody else sees.

It is mounted in a mount namespace of this process and what it starts, so that the kernel takes it away with the last of
them, however they end. For root on Linux; elsewhere there is none, and why is said.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import OperatorError

SIZE_BYTES = 2 << 30  # takes memory only for what is written
TRIES = 50  # a broker that writes between our look and our order
# <sched.h>, <sys/mount.h>
_CLONE_NEWNS = 0x20000
_MS_REMOUNT, _MS_REC, _MS_PRIVATE = 0x20, 0x4000, 0x40000
_MNT_DETACH = 2


class Disk:
    """Mounted on folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Take away all space that is not in use. Raises OSError: what uses it is too quick."""
        for left in reversed(range(TRIES)):
            try:
                return self._resize(self.used_bytes())
            except OSError:
                if not left:
                    raise

    def free(self) -> None:
        """Give the space back. Raises OSError."""
        self._resize(SIZE_BYTES)

    def used_bytes(self) -> int:
        """What is written on it."""
        now = os.statvfs(self.folder)
        return (now.f_blocks - now.f_bfree) * now.f_frsize

    def _resize(self, size: int) -> None:
        _call("mount", b"tmpfs", os.fsencode(self.folder), b"tmpfs", _MS_REMOUNT, b"size=%d" % size)


def unshared() -> str:
    """Give this process mounts of its own; empty, or why that cannot be. Before it has other threads."""
    if not sys.platform.startswith("linux"):
        return "it takes Linux"
    if os.geteuid():
        return "it takes root"
    try:
        _call("unshare", _CLONE_NEWNS)
        _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    except OSError as exc:
        return f"no mounts of our own here: {exc.strerror}"
    return ""


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A disk on this folder, which is made, for as long as the block runs; only after unshared() gave nothing to say.
    Raises OperatorError."""
    folder.mkdir(parents=True)
    try:
        _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % SIZE_BYTES)
    except OSError as exc:
        raise OperatorError(f"no disk can be mounted on {folder}: {exc.strerror}; try --no-disk-full") from exc
    try:
        yield Disk(folder)
    finally:
        _call("umount2", os.fsencode(folder), _MNT_DETACH)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library that gives 0. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
