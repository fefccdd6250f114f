"""Labels meet predictions: late, early, in parts, twice, or for nobody.

Joined by batch id and transaction id; the later of two labels counts, as it does for the healer.
"""

from __future__ import annotations

from monitor.state import Batch, EarlyLabels, State
from shared.records import MAX_ROWS, Labels, Source

TURN_MAX = 10_000  # most records of a turn (MONITOR_TURN_MAX)
LOOK_EVERY = 64  # batches
EARLY_BYTES = 1024 * 1024  # most labels held early for one batch: a part of the state must fit a record


def join(state: State, batch: Batch, record: EarlyLabels) -> bool:
    """Enter a record's labels into the batch; False when it changed nothing. At most 1,000 records are joined for a
    batch, so that a feed that keeps changing its mind cannot grow the state."""
    if not batch.joined and record.transaction_ids == batch.ids:
        batch.labels = bytes(record.labels)
        if record.audit:
            batch.audited = bytes([1]) * len(batch.ids)
    else:
        where = {name: i for i, name in enumerate(batch.ids)}
        known, gave, unknown = bytearray(batch.labels), 0, 0
        audited = bytearray(batch.audited or bytes(len(batch.ids)))
        for name, label in zip(record.transaction_ids, record.labels, strict=True):
            i = where.get(name)
            if i is None:
                unknown += 1
            elif known[i] != label or record.audit > audited[i]:
                known[i] = label
                audited[i] |= record.audit
                gave += 1
        state.count("labels_unknown", unknown)
        state.count("labels_repeated", len(record.labels) - gave - unknown)
        if not gave or len(batch.joined) >= MAX_ROWS:
            return False
        batch.labels = bytes(known)
        if record.audit:
            batch.audited = bytes(audited)
    batch.joined = [*batch.joined, record.source]
    state.put(batch)
    return True


def early_labels(labels: Labels, source: Source) -> EarlyLabels:
    """What is kept of a labels record."""
    return EarlyLabels(
        source=source, transaction_ids=labels.transaction_ids, labels=labels.labels, audit=labels.kind == "audit"
    )


def hold(state: State, labels: Labels, source: Source, size: int, most: int) -> None:
    """Keep labels whose prediction has not come; for one batch, of as many transactions as a batch can have. size:
    bytes of the record. Reading labels stops at `most` batches (monitor/pacing.py), within a turn."""
    held = state.early.get(labels.batch_id)
    if held is not None:
        rows = sum(len(r.labels) for r in held.records)
        if held.size + size > EARLY_BYTES or rows + len(labels.labels) > MAX_ROWS:
            state.count("labels_unknown", len(labels.labels))
            return
    record = early_labels(labels, source)
    state.keep_early(labels.batch_id, record, size)
    while len(state.early) > most + TURN_MAX:
        _drop(state, next(iter(state.early)))


def expire(state: State, most: int) -> None:
    """Now and then drop labels that nobody will ask for: of batches that are not among the 2 * most predictions read
    since from the same partition. (A batch's labels and its prediction lie in partitions of the same number; what
    was read of other partitions says nothing, in a backlog one may be read long before the other.)"""
    if len(state.early) < most / 2 or state.core.batches % LOOK_EVERY:
        return
    read = state.core.read
    old = [
        batch_id for batch_id, e in state.early.items()
        if e.since + 2 * most < read.get(e.records[0].source.partition, 0)
    ]  # fmt: skip
    for batch_id in old:
        _drop(state, batch_id)


def _drop(state: State, batch_id: str) -> None:
    state.count("labels_unknown", sum(len(r.labels) for r in state.pop_early(batch_id)))
