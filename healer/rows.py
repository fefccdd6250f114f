"""From a heal request to its rows: exactly the offsets it names, checked, joined with their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from healer.reference import UNLABELLED, Labels
from shared import records
from shared.bundle import Array
from shared.errors import Refused, TimedOut
from shared.kafka import Deadline, Fetcher, Taken, watermarks
from shared.records import HealRequest, OffsetRange, Transactions, check_batch, check_labels, decode
from shared.topics import topic_name

Audited = npt.NDArray[np.bool_]


class Rows(NamedTuple):
    """x (n, d) float32, labels (n,) int8 with -1 where none came; in the order of the named offsets."""

    x: Array
    labels: Labels


class Entry(NamedTuple):
    """What one entry of request.transactions names. x (n, d) float32; labels (n,) int8, -1 where none came; audit (n,)
    bool: labelled by the random audit."""

    x: Array
    labels: Labels
    audit: Audited

    @property
    def complete(self) -> bool:
        """Every row has a label: nobody chose which."""
        return bool((self.labels != UNLABELLED).all())

    @property
    def usable(self) -> Audited:
        """(n,) rows whose label may count: all of a complete batch, else the audited ones. Labels of flagged rows only
        (selection bias) would flatter whoever flags."""
        return np.full(len(self.labels), True) if self.complete else self.audit


class RowReader:
    """Reads the rows of one request after another; belongs to one thread."""

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, n_features: int, *, name: str, budget_s: float, rows_max: int
    ) -> None:
        self._kafka, self._n_features, self._budget_s, self._rows_max = kafka, n_features, budget_s, rows_max
        self._transactions, self._labels = topic_name("transactions", prefix), topic_name("labels", prefix)
        self._partitions: dict[str, set[int]] = {self._transactions: set(), self._labels: set()}
        self._fetcher = Fetcher(kafka, f"{name}-rows")

    def read(self, request: HealRequest) -> Rows:
        """Fetch, decode, join. Raises Refused: rows-gone, a record that cannot be used, another topic than this
        pipeline's, more than rows_max rows, or no answer within the budget."""
        batches, answers = self._records(request)
        return join(batches, answers, self._n_features, self._rows_max)

    def read_entries(self, request: HealRequest) -> list[Entry]:
        """As read, but in the order of request.transactions, one each. Raises Refused as read."""
        batches, answers = self._records(request)
        return entries_of(request.transactions, batches, answers, self._n_features, self._rows_max)

    def _records(self, request: HealRequest) -> tuple[list[Taken], list[Taken]]:
        """Of transactions and of labels, each once, by partition and offset."""
        deadline = Deadline(self._budget_s)
        for ranges, topic, field in (
            (request.transactions, self._transactions, "transactions"),
            (request.labels, self._labels, "labels"),
        ):
            self._check(ranges, topic, field)
        try:
            records = self._fetch([*request.transactions, *request.labels], deadline)
        except TimedOut as exc:
            raise Refused(f"rows-late: {exc} (HEALER_FETCH_BUDGET_S {self._budget_s:g})") from exc
        of = {topic: [r for r in records if r.topic == topic] for topic in (self._transactions, self._labels)}
        return of[self._transactions], of[self._labels]

    def close(self) -> None:
        """Close the client."""
        self._fetcher.close()

    def _check(self, ranges: Sequence[OffsetRange], topic: str, field: str) -> None:
        for i, span in enumerate(ranges):
            if span.topic != topic:
                raise Refused(f"{span.topic} is not {topic}", f"{field}[{i}].topic")
            if span.start >= span.end:
                raise Refused(f"no offset from {span.start} to {span.end}", f"{field}[{i}]")
            if span.partition not in self._partitions[topic]:
                self._partitions[topic] = set(watermarks(self._kafka, topic, self._budget_s))
            if span.partition not in self._partitions[topic]:
                raise Refused(f"{topic} has no partition {span.partition}", f"{field}[{i}].partition")
        # Known before anything is read: a record holds at least one row, and there is at most one
        # transaction marker to a record where nothing was aborted.
        offsets = sum(span.end - span.start for span in ranges)
        if offsets > 2 * self._rows_max:
            raise Refused(
                f"too-many-rows: {offsets} offsets, at most {self._rows_max} rows are read (HEALER_ROWS_MAX)", field
            )

    def _fetch(self, ranges: Iterable[OffsetRange], deadline: Deadline) -> list[Taken]:
        found = []
        for span, taken in self._fetcher.fetch_all(merged(ranges), deadline):
            if not taken:
                raise Refused(f"rows-gone: no record in {span.start}..{span.end} of {span.topic}[{span.partition}]")
            found += taken
        return sorted(found, key=lambda r: (r.partition, r.offset))


def merged(ranges: Iterable[OffsetRange]) -> list[OffsetRange]:
    """The same offsets in as few ranges as hold them, each offset once, by topic, partition and offset."""
    spans: list[OffsetRange] = []
    for span in sorted(ranges, key=lambda r: (r.topic, r.partition, r.start)):
        last = spans[-1] if spans else None
        if last and (last.topic, last.partition) == (span.topic, span.partition) and span.start <= last.end:
            spans[-1] = OffsetRange(
                topic=last.topic, partition=last.partition, start=last.start, end=max(last.end, span.end)
            )
        else:
            spans.append(span)
    return spans


def join(batches: Sequence[Taken], answers: Sequence[Taken], n_features: int, rows_max: int) -> Rows:
    """Decode transactions and labels records and join them by batch id and transaction id; of two labels for one
    transaction the later record's counts, labels of others are left out. Raises Refused, which names the offset."""
    known: dict[tuple[str, str], int] = {}
    for record in answers:
        said = _labels(record)
        known |= {(said.batch_id, i): y for i, y in zip(said.transaction_ids, said.labels, strict=True)}
    x: list[Array] = []
    labels: list[int] = []
    for record in batches:
        batch, rows = _batch(record, n_features)
        if len(labels) + len(batch.transaction_ids) > rows_max:
            raise _too_many(rows_max, "transactions")
        x.append(rows)
        labels += [known.get((batch.batch_id, i), UNLABELLED) for i in batch.transaction_ids]
    return Rows(np.concatenate(x), np.array(labels, np.int8))


def entries_of(
    ranges: Sequence[OffsetRange], batches: Sequence[Taken], answers: Sequence[Taken], n_features: int, rows_max: int
) -> list[Entry]:
    """Decode and join as join does, kept apart by the range that names the record. A transaction counts as audited
    where any of its labels has kind audit. Raises Refused, which names the offset, or the range that holds none."""
    known: dict[tuple[str, str], int] = {}
    audited: set[tuple[str, str]] = set()
    for record in answers:
        said = _labels(record)
        keys = [(said.batch_id, i) for i in said.transaction_ids]
        known |= zip(keys, said.labels, strict=True)
        if said.kind == "audit":
            audited.update(keys)
    at = {(r.partition, r.offset): r for r in batches}
    entries, count = [], 0
    for i, span in enumerate(ranges):
        records = [at[span.partition, o] for o in range(span.start, span.end) if (span.partition, o) in at]
        if not records:
            raise Refused(f"rows-gone: no record in {span.start}..{span.end} of {span.topic}", f"transactions[{i}]")
        decoded = [_batch(record, n_features) for record in records]
        keys = [(batch.batch_id, t) for batch, _ in decoded for t in batch.transaction_ids]
        if (count := count + len(keys)) > rows_max:
            raise _too_many(rows_max, "transactions")
        labels = np.array([known.get(key, UNLABELLED) for key in keys], np.int8)
        entries.append(Entry(np.concatenate([x for _, x in decoded]), labels, np.array([k in audited for k in keys])))
    return entries


def _too_many(rows_max: int, field: str) -> Refused:
    return Refused(f"too-many-rows: one heal reads at most {rows_max} (HEALER_ROWS_MAX)", field)


def _labels(record: Taken) -> records.Labels:
    try:
        labels = decode(records.Labels, record.value)
        check_labels(labels)
    except Refused as exc:
        raise _at(record, exc) from exc
    return labels


def _batch(record: Taken, n_features: int) -> tuple[Transactions, Array]:
    """The batch and its rows (n, d) float32: what the scorer made of them."""
    try:
        batch = decode(Transactions, record.value)
        check_batch(batch, n_features)
        with np.errstate(over="ignore"):
            x = np.array(batch.features, np.float64).astype(np.float32)
        if not np.isfinite(x).all():
            raise Refused("a number is too large for float32", "features")
    except Refused as exc:
        raise _at(record, exc) from exc
    return batch, x


def _at(record: Taken, exc: Refused) -> Refused:
    where = f"{record.topic}[{record.partition}] offset {record.offset}"
    return Refused(f"rows-unreadable: {where}: {exc}")
