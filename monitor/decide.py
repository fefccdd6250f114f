"""The state machine: fold one record into the state, get the decisions. No I/O, no clock, no chance.

docs/protocol.md, "Deciding", has the rules; monitor/outcomes.py the part after a heal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor import crossing, guarded, learning, outcomes, says, served
from monitor.fidi import pushed, z_score
from monitor.joining import early_labels, expire, hold, join
from monitor.rows import Judged, check_prediction, first_row, labelled, replaced, scored
from monitor.setup import Decision, Setup
from monitor.state import NO_LABEL, Batch, Heal, State
from monitor.thinning import is_read
from shared.bundle import Array
from shared.errors import Refused
from shared.kafka import Headers
from shared.records import Labels, Record, Source, check_labels, decode
from shared.topics import Name

MAX_BYTES = 2 * 1024 * 1024  # of a record: what is kept of it must fit a state record


class Input(NamedTuple):
    """A record as it was read. name: which topic, without the prefix."""

    name: Name
    source: Source
    key: bytes | None
    value: bytes | None
    headers: Headers


def fold(state: State, setup: Setup, record: Input, at: str, rows: Array | None = None) -> list[Decision]:
    """Decisions that this record brings about; the state is changed in place. at: the wall clock, used where the
    batch does not bring its own time. rows (n, d) float32: what a prediction was made of, as fed; read with policy
    guarded only, None where they are gone. Raises Refused, with the state unchanged."""
    if record.value is not None and len(record.value) > MAX_BYTES:
        raise Refused(f"{len(record.value)} bytes, at most {MAX_BYTES} are read")
    if record.name == "events":
        return outcomes.on_event(state, setup, record.value, at)
    if not is_wanted(state, setup, record):
        return []
    if record.name == "predictions":
        return _on_prediction(state, setup, record, at, rows)
    return _on_labels(state, setup, record, at)


def is_wanted(state: State, setup: Setup, record: Input) -> bool:
    """Whether fold reads the record's value. By the key alone, so that a skipped value is never decoded. Lockstep,
    and labels of a batch that was read when the share was larger, are read whatever the share."""
    if state.core.share >= 1.0 or record.key is None or "lockstep" in record.headers:
        return True
    if is_read(record.key, setup.thin_seed, state.core.share):
        return True
    return record.name == "labels" and record.key.decode("utf-8", "replace") in state.pending


class _Stood(Record, frozen=True):
    batch_id: str
    source: Source


def stood(state: State, setup: Setup, record: Input) -> tuple[str, Source] | None:
    """Batch id, and where the batch stood whose rows fold wants with this record; None: it wants none."""
    if setup.guarding is None or record.name != "predictions" or not is_wanted(state, setup, record):
        return None
    try:
        found = decode(_Stood, record.value)
    except Refused:  # fold will say so
        return None
    return found.batch_id, found.source


def _on_prediction(state: State, setup: Setup, record: Input, at: str, rows: Array | None) -> list[Decision]:
    prediction = decode(Judged, record.value)
    check_prediction(prediction, setup)
    lockstep, core, name = "lockstep" in record.headers, state.core, prediction.batch_id
    at = prediction.created_at if lockstep else at
    if name in state.pending or name in state.done_ids:
        state.count("repeated")
        message = f"batch {name} came again: its first prediction stands"
        return [says.event("record-refused", at, message, batch_id=name)] if lockstep else []
    core.batches += 1
    core.read[record.source.partition] = core.read.get(record.source.partition, 0) + 1
    state.window = pushed(state.window, prediction.feature_sums, len(prediction.transaction_ids))
    z = z_score(state.window, setup.calibration.watched, setup.calibration)
    drifting = z is not None and z > setup.thresholds.fidi_threshold
    batch = Batch(
        row=first_row(
            prediction, setup, batch_idx=core.batches, z=z, drifting=drifting, active=core.active,
            share=1.0 if lockstep else core.share,
        ),
        ids=prediction.transaction_ids,
        probability=np.array(prediction.probability, "<f4").tobytes(),
        shadow=np.array(prediction.shadow_probability, "<f4").tobytes(),
        source=prediction.source,
        drifting=drifting,
        lockstep=lockstep,
        labels=bytes([NO_LABEL]) * len(prediction.transaction_ids),
    )  # fmt: skip
    state.put(batch)
    decisions = crossing.told(state, setup, batch, z, at)
    if setup.guarding is not None:
        learning.beside(state, setup.guarding, prediction)
        decisions += guarded.on_batch(state, setup, setup.guarding, batch, rows, at)
    for early in state.pop_early(name):
        join(state, batch, early)
    if setup.guarding is not None:
        decisions += served.on_labels(state, setup.guarding, batch, at)
    if batch.complete:
        decisions += _judge(state, setup, batch, at)
    else:
        decisions.append(Decision("metrics", name, batch.row))
        if not batch.row.settled:
            state.unjudged.append(name)
    expire(state, setup.pending_max)
    return decisions + _impatient(state, setup, at) + _evicted(state, setup)


def _on_labels(state: State, setup: Setup, record: Input, at: str) -> list[Decision]:
    labels = decode(Labels, record.value)
    check_labels(labels)
    batch = state.pending.get(labels.batch_id)
    if batch is None:
        if labels.batch_id in state.done_ids:
            state.count("labels_late", len(labels.labels))
        else:
            hold(state, labels, record.source, len(record.value or b""), setup.pending_max)
        return []
    if not join(state, batch, early_labels(labels, record.source)):
        return []
    decisions = []
    if setup.guarding is not None:
        decisions = served.on_labels(state, setup.guarding, batch, batch.row.timestamp if batch.lockstep else at)
    if batch.complete:
        return decisions + _judge(state, setup, batch, at)
    return decisions + ([Decision("metrics", batch.row.batch_id, batch.row)] if decisions else [])


def _judge(state: State, setup: Setup, batch: Batch, at: str) -> list[Decision]:
    """Score the batch if it is complete. The first time it comes here it may ask for a heal."""
    core, first = state.core, not batch.judged
    at = batch.row.timestamp if batch.lockstep else at
    batch.row = scored(batch, setup) if batch.complete else replaced(batch, labelled=labelled(batch))
    decisions: list[Decision] = []
    reason = _reason(batch, setup)
    batch.judged = True
    if first and setup.guarding is not None:
        learning.completed(state, setup.guarding, batch)
        if not batch.row.settled and not _under_way(state, batch):  # it came under another policy
            batch.row = replaced(batch, settled=True, next_version=core.active)
    elif first:
        if reason and core.heal is None and setup.policy == "reference":
            heal = core.heal = Heal(
                request_id=f"heal-{batch.row.batch_idx}", batch_id=batch.row.batch_id, base_version=core.active
            )
            batch.row = replaced(batch, state="HEALING", action="heal", next_version=core.active)
            decisions = [says.heal_requested(heal, batch, at, reason), says.heal_request(heal, batch, setup, reason)]
        else:
            if core.heal is None and batch.complete:
                decisions = outcomes.watch_served(state, setup, batch, at)
            batch.row = replaced(batch, settled=True, next_version=core.active)
    state.put(batch)
    if batch.complete and not _under_way(state, batch):
        state.retire(batch.row.batch_id)
    return [*decisions, Decision("metrics", batch.row.batch_id, batch.row)]


def _under_way(state: State, batch: Batch) -> bool:
    return state.core.heal is not None and state.core.heal.batch_id == batch.row.batch_id


def _reason(batch: Batch, setup: Setup) -> str:
    """Why this batch would have a heal; empty where it would not."""
    row, thresholds, reasons = batch.row, setup.thresholds, []
    if row.n_conflicts >= thresholds.conflict_min:
        reasons.append(f"{row.n_conflicts} conflicts")
    if batch.drifting:
        reasons.append(f"{setup.calibration.name} z {row.z_score:.2f} over {thresholds.fidi_threshold:.2f}")
    return ", ".join(reasons)


def _impatient(state: State, setup: Setup, at: str) -> list[Decision]:
    """Judge without labels what label_patience newer batches have overtaken."""
    decisions: list[Decision] = []
    if not setup.label_patience:
        state.unjudged.clear()
        return decisions
    due = state.core.batches - setup.label_patience
    while state.unjudged:
        batch = state.pending.get(state.unjudged[0])
        if batch is not None and not batch.judged and not batch.row.settled:
            if batch.row.batch_idx > due:
                break
            decisions += _judge(state, setup, batch, at)
        state.unjudged.popleft()
    return decisions


def _evicted(state: State, setup: Setup) -> list[Decision]:
    """Give up the oldest batches beyond pending_max; not the one whose heal is under way."""
    decisions = []
    healing = state.core.heal.batch_id if state.core.heal else None
    while len(state.pending) > setup.pending_max:
        name = next(i for i in state.pending if i != healing)
        batch = state.pending[name]
        if not batch.row.settled:
            state.count("unjudged")
            row = replaced(batch, action="unjudged", settled=True, labelled=labelled(batch))
            decisions.append(Decision("metrics", name, row))
        state.retire(name)
    return decisions
