"""Single records of one partition, asked for in about the order in which they lie: a reader that goes forward with
what is asked, and keeps the newest records that it has passed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from audit.log import Record

WINDOW_BYTES = 8 * 1024 * 1024


class Cursor:
    """stream: records [start, end) of the partition, which ends at `end`."""

    def __init__(self, stream: Callable[[int, int], Iterator[Record]], end: int) -> None:
        self._open, self._end = stream, end
        self._stream: Iterator[Record] | None = None
        self._next = 0  # every record below was passed
        self._window: OrderedDict[int, Record] = OrderedDict()
        self._bytes = 0

    def get(self, offset: int) -> Record | None:
        """The record at this offset, None where there is none. Raises CannotAudit."""
        if offset in self._window:
            return self._window[offset]
        if offset < self._next:
            # Long passed, or never there.
            return next(self._open(offset, offset + 1), None)
        if self._stream is None:
            self._stream = self._open(offset, self._end)
        for record in self._stream:
            self._next = record.offset + 1
            self._keep(record)
            if record.offset >= offset:
                break
        else:
            self._next = self._end
        return self._window.get(offset)

    def _keep(self, record: Record) -> None:
        self._window[record.offset] = record
        self._bytes += len(record.value or b"")
        while self._bytes > WINDOW_BYTES and len(self._window) > 1:
            _, old = self._window.popitem(last=False)
            self._bytes -= len(old.value or b"")

    def close(self) -> None:
        """End the stream and its client."""
        self._stream = None
        self._window.clear()
