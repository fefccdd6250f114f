"""How a download shows itself: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

LINE_EVERY_S = 5.0


class Report:
    """Counts bytes and jars from several threads. Callable as jgo's progress callback: it is given a file
    name and its size, and answers with a context manager that yields a function taking a count of bytes."""

    def __init__(self, show: Callable[[int, int], None]) -> None:
        self._show = show
        self._lock = Lock()
        self._jars = self._bytes = 0

    @contextmanager
    def __call__(self, filename: str, size: int) -> Iterator[Callable[[int], None]]:
        sent = 0

        def add(count: int) -> None:
            nonlocal sent
            sent += count
            self._add(bytes_=count)

        try:
            yield add
        except BaseException:
            self._add(bytes_=-sent)  # this file is tried again from its start
            raise

    def jar_done(self) -> None:
        """One more jar is checked and in its place."""
        self._add(jars=1)

    def _add(self, *, bytes_: int = 0, jars: int = 0) -> None:
        with self._lock:
            self._bytes += bytes_
            self._jars += jars
            self._show(self._jars, self._bytes)


@contextmanager
def reporting(console: Console, what: str, jars: int, total_bytes: int) -> Iterator[Report]:
    """Show the fetching of ``jars`` files, ``total_bytes`` in all, for as long as the block lasts."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total_bytes)
            yield Report(lambda done, sent: bar.update(task, completed=sent, description=f"{what}: {done}/{jars} jars"))
        return
    started = last = time.monotonic()
    console.print(f"fetching {what}: {jars} jars, {total_bytes / 1e6:.0f} MB, needed once", soft_wrap=True)

    def line(done: int, sent: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= LINE_EVERY_S:
            last = now
            console.print(f"fetching {what}: {done} of {jars} jars, {sent / 1e6:.0f} MB", soft_wrap=True)

    yield Report(line)
    console.print(f"fetched {what} in {time.monotonic() - started:.0f} s", soft_wrap=True)
