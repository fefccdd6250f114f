"""An existing transactions topic as a source: its batches in their order, its labels at their distance."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from producer.batch import Batch
from producer.span import Span, in_order, resolve
from shared.errors import OperatorError, Refused
from shared.kafka import Fetcher, Taken, offsets_at, watermarks
from shared.records import Labels, OffsetRange, Transactions, check_batch, decode
from shared.telemetry import get_logger

HELD_MAX = 1_000
_BEFORE_MS = 3_600_000  # labels are looked for from this long before the first batch: they may come early
_BUDGET_S = 30.0


@dataclass
class ReplaySource:
    """topic: transactions as they were. labels: the labels topic to replay beside it, None for none. features: the
    bundle's names. rename: batches become <rename>-000001, ..; None: they keep their ids. flush: labels that came
    after the end of the span are sent too, after the last batch.

    A labels record goes out between the same two batches as it did. Afterwards: `unreadable` batches (the original
    dead letters) were left out; `foreign` labels records belonged to no batch of the span.
    """

    kafka: Mapping[str, Any]
    topic: str
    labels: str | None
    features: Sequence[str]
    span: Span
    rename: str | None = None
    flush: bool = False
    unreadable: int = field(default=0, init=False)
    foreign: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        return self.rename or "replay"

    @property
    def labelled(self) -> bool:
        """Labels come in records of their own, not with the rows."""
        return False

    def batches(self) -> Iterator[Batch]:
        """Every readable batch of the span. Raises OperatorError: no such topic, nothing in the span."""
        self.unreadable = self.foreign = 0
        ranges = resolve(self.kafka, self.topic, self.span, _BUDGET_S)
        known, early = _Known(self.rename), _Early()
        batch: Batch | None = None
        with closing(Fetcher(self.kafka, "producer-replay")) as fetcher:
            for record in self._merged(fetcher, ranges):
                if record.topic == self.topic:
                    read = self._batch(record, known)
                    if read is None:
                        continue
                    if batch is not None:
                        yield batch
                    original, batch = read
                    batch = replace(batch, follow=tuple(known.renamed(each) for each in early.claim(original)))
                else:
                    batch = self._label(record, known, early, batch)
            if batch is not None:
                yield batch
        self.foreign += early.left
        if self.unreadable or self.foreign:
            get_logger("producer").warning("replay_left_out", batches=self.unreadable, labels=self.foreign)

    def _merged(self, fetcher: Fetcher, ranges: Sequence[OffsetRange]) -> Iterator[Taken]:
        batches = in_order(fetcher, ranges, _BUDGET_S)
        first = next(batches, None)
        if first is None:
            raise OperatorError(f"nothing to replay: the range of {self.topic} holds no committed record")
        if self.labels is None:
            return chain([first], batches)
        start = offsets_at(self.kafka, self.labels, first.timestamp_ms - _BEFORE_MS, _BUDGET_S)
        ends = watermarks(self.kafka, self.labels, _BUDGET_S)
        wanted = [
            OffsetRange(topic=self.labels, partition=p, start=start[p], end=high)
            for p, (_, high) in ends.items()
            if start[p] < high
        ]
        labels = in_order(fetcher, wanted, _BUDGET_S)
        until = None if self.flush else self._span_left(fetcher, ranges)
        return _merge(chain([first], batches), labels, until)

    def _span_left(self, fetcher: Fetcher, ranges: Sequence[OffsetRange]) -> int | None:
        """When the first batch after the span came (ms), None where there is none."""
        after = watermarks(self.kafka, self.topic, _BUDGET_S)
        beyond = [msgspec.structs.replace(r, start=r.end, end=after[r.partition][1]) for r in ranges]
        first = next(in_order(fetcher, [r for r in beyond if r.start < r.end], _BUDGET_S), None)
        return None if first is None else first.timestamp_ms

    def _batch(self, record: Taken, known: _Known) -> tuple[str, Batch] | None:
        try:
            was = decode(Transactions, record.value)
            check_batch(was, len(self.features))
        except Refused:
            self.unreadable += 1
            return None
        rows = np.array(was.features, np.float64)
        batch_id = known.add(was.batch_id)
        batch = Batch(rows, None, was.transaction_ids, was.amounts, batch_id, was.created_at)
        return was.batch_id, batch

    def _label(self, record: Taken, known: _Known, early: _Early, batch: Batch | None) -> Batch | None:
        """The batch after which these labels go out, with them; they wait when theirs has not been seen yet."""
        try:
            labels = decode(Labels, record.value)
        except Refused:
            self.foreign += 1
            return batch
        if batch is None or labels.batch_id not in known:
            early.hold(labels)
            return batch
        return replace(batch, follow=(*batch.follow, known.renamed(labels)))


def _merge(batches: Iterator[Taken], labels: Iterator[Taken], until: int | None) -> Iterator[Taken]:
    """By timestamp, a batch before labels of the same ms. until: no labels from that time (ms) on."""
    batch, label = next(batches, None), next(labels, None)
    while batch is not None or label is not None:
        if batch is not None and (label is None or batch.timestamp_ms <= label.timestamp_ms):
            yield batch
            batch = next(batches, None)
        elif label is not None:
            if until is not None and label.timestamp_ms >= until and batch is None:
                return
            yield label
            label = next(labels, None)


class _Known:
    """Original batch id to the id it has now."""

    def __init__(self, rename: str | None) -> None:
        self._rename, self._ids = rename, dict[str, str]()
        self._count = 0

    def __contains__(self, original: str) -> bool:
        return original in self._ids

    def add(self, original: str) -> str:
        self._count += 1
        self._ids[original] = original if self._rename is None else f"{self._rename}-{self._count:06d}"
        return self._ids[original]

    def renamed(self, labels: Labels) -> Labels:
        return msgspec.structs.replace(labels, batch_id=self._ids[labels.batch_id])


class _Early:
    """Labels records whose batch has not come (yet): the newest 1,000."""

    def __init__(self) -> None:
        self._held: deque[Labels] = deque()
        self._dropped = 0

    def hold(self, labels: Labels) -> None:
        self._held.append(labels)
        if len(self._held) > HELD_MAX:
            self._held.popleft()
            self._dropped += 1

    def claim(self, batch_id: str) -> list[Labels]:
        """Those of this batch; they are held no longer."""
        found = [each for each in self._held if each.batch_id == batch_id]
        if found:
            self._held = deque(each for each in self._held if each.batch_id != batch_id)
        return found

    @property
    def left(self) -> int:
        """Records that no batch claimed."""
        return self._dropped + len(self._held)
