"""The rows that predictions were made of, read from where their batches stood."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from shared.bundle import Array
from shared.errors import Refused
from shared.kafka import Deadline, Fetcher, Taken, watermarks
from shared.records import OffsetRange, Record, Source, decode

GAP = 16  # records not asked for that are read along, rather than asking twice: a request takes as long as 20 of them
SPAN = 64  # records of a request: what is decoded lets go of its bytes

Where = tuple[str, Source]  # batch id, and where the batch stood


class Fed(Record, frozen=True):
    """What is read of a transactions record. The scorer has checked it; whoever is wrong is skipped here."""

    batch_id: str
    features: list[list[float]]


class RowFetcher:
    """One client, for one thread. d: features of the bundle."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, d: int, *, budget_s: float) -> None:
        self._kafka, self._topic, self._d, self._budget_s = kafka, topic, d, budget_s
        self._fetcher = Fetcher(kafka, "monitor-rows")

    def read(self, wanted: Iterable[Where]) -> dict[Where, Array]:
        """Rows (n, d) float32. What is gone, of another topic, or is not that batch, is left out. Raises TimedOut,
        Fatal."""
        where = {(w[1].partition, w[1].offset): w for w in wanted if w[1].topic == self._topic}
        deadline, found = Deadline(self._budget_s), dict[Where, Array]()
        for taken in self._records(list(spans(self._topic, sorted(where))), deadline):
            asked = where.get((taken.partition, taken.offset))
            if asked is not None and (rows := rows_of(taken.value, asked[0], self._d)) is not None:
                found[asked] = rows
        return found

    def _records(self, wanted: Sequence[OffsetRange], deadline: Deadline) -> Iterator[Taken]:
        try:
            for _, records in self._fetcher.fetch_all(wanted, deadline):
                yield from records
        except Refused:  # of one, and the others are read again
            for span in wanted:
                yield from self._left(span, deadline)

    def _left(self, span: OffsetRange, deadline: Deadline) -> list[Taken]:
        try:
            return self._fetcher.fetch(span, deadline)
        except Refused:  # retention took some, or all
            low = watermarks(self._kafka, self._topic, deadline.left_s()).get(span.partition, (span.end, 0))[0]
            if low >= span.end or low <= span.start:
                return []
        rest = OffsetRange(topic=span.topic, partition=span.partition, start=low, end=span.end)
        return self._fetcher.fetch(rest, deadline)

    def close(self) -> None:
        """Let go of the client."""
        self._fetcher.close()


def spans(topic: str, offsets: Sequence[tuple[int, int]]) -> Iterator[OffsetRange]:
    """Few ranges that hold all (partition, offset), sorted."""
    first = last = None
    for at in offsets:
        if first is not None and last is not None:
            if at[0] == first[0] and at[1] - last[1] <= GAP and at[1] - first[1] < SPAN:
                last = at
                continue
            yield OffsetRange(topic=topic, partition=first[0], start=first[1], end=last[1] + 1)
        first = last = at
    if first is not None and last is not None:
        yield OffsetRange(topic=topic, partition=first[0], start=first[1], end=last[1] + 1)


def rows_of(value: bytes | None, batch_id: str, d: int) -> Array | None:
    """(n, d) float32 of a transactions record, None where it is not that batch or no table of d finite numbers."""
    try:
        fed = decode(Fed, value)
        rows = np.array(fed.features, np.float64)
    except (Refused, ValueError):  # not a record, or rows of different lengths
        return None
    if fed.batch_id != batch_id or rows.ndim != 2 or rows.shape[1] != d:
        return None
    with np.errstate(over="ignore"):
        x: Array = rows.astype(np.float32)
    return x if np.isfinite(x).all() else None
