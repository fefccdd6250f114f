"""The producer's loop: take a batch from a source, wait for its time, publish it, and labels when they are due.

Records go out idempotently and not in transactions: a batch is one record, and nothing is consumed that would have
to move with it. Every second, and at the end, everything sent so far must have been acknowledged.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from producer.announce import started, stopped
from producer.batch import Batch, BatchSource
from producer.labels import LabelPlan, LabelQueue
from producer.lockstep import Settler, stream_time
from producer.pace import Pace, check_rate
from producer.target import Target, need_topics
from shared import records
from shared.crash import crash_point
from shared.errors import OperatorError
from shared.kafka import Out, Writer
from shared.settings import ProducerSettings
from shared.telemetry import Heartbeat, epoch_ms, get_logger, wall_clock

FLUSH_EVERY_S = 1.0
AT_ONCE = LabelPlan()
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Sent:
    """One batch, told to on_batch when it went out (lockstep: when it is settled). k counts from 1; version: the
    adapter named in its header; next_version: lockstep alone, what is active after it."""

    k: int
    batch_id: str
    rows: int
    version: str | None
    next_version: str | None


@dataclass(frozen=True)
class Produced:
    """What was published and acknowledged. labels, audits: records, not transactions. outstanding: labels records
    that were not due yet when the stream ended, and were not sent."""

    run: str
    batches: int
    rows: int
    labels: int
    audits: int
    outstanding: int
    took_s: float


def run(
    settings: ProducerSettings, kafka: Mapping[str, Any], source: BatchSource, *, batches: int | None = None,
    rate: float | None = None, lockstep: bool = False, labels: LabelPlan = AT_ONCE, run_name: str | None = None,
    to: Target | None = None, on_batch: Callable[[Sent], None] | None = None, stop: Callable[[], bool] = lambda: False,
) -> Produced:  # fmt: skip
    """Publish until the source ends, `batches` are out, or stop() says so; blocks for as long.

    rate: batches/s, None as fast as it goes. run_name: the batch ids' first part; by default s<seed> (the source's
    name) in lockstep, else one that no other start has. to: other topics than those of settings.prefix.
    Raises OperatorError: a setting, a missing topic, a batch that is never settled. Fatal: records were not
    acknowledged within commit_budget_s. TimedOut: the broker does not keep up.
    """
    _check(batches, lockstep, labels, to)
    check_rate(rate)
    name = _checked_name(run_name or (source.name if lockstep else unique_name(settings.slot)))
    target = to or Target.of(settings.prefix)
    need_topics(kafka, [target.transactions, target.labels, target.events])
    writer = Writer(
        kafka, f"producer-{settings.slot}", budget_s=settings.commit_budget_s, linger_ms=0 if lockstep else 5
    )
    settler = Settler(kafka, settings.prefix, settings.settle_s) if lockstep else None
    loop = _Loop(writer, target, labels, name, settler, stop, on_batch)
    log = get_logger("producer")
    try:
        loop.publish(started(target.events, settings.slot, {"run": name, "lockstep": lockstep}))
        writer.flush()
        log.info("started", run=name, source=source.name, topic=target.transactions)
        pace = Pace(rate)
        for k, batch in enumerate(itertools.islice(source.batches(), batches), start=1):
            if not pace.wait(k, stop) or not loop.batch(k, batch):
                break
        produced = loop.finish()
        loop.publish(stopped(target.events, settings.slot, {"run": name, "batches": produced.batches}))
        writer.close()
        log.info("stopped", run=name, batches=produced.batches, labels=produced.labels, took_s=produced.took_s)
        return produced
    finally:
        if settler is not None:
            settler.close()


class _Loop:
    """What one run has sent so far."""

    def __init__(
        self, writer: Writer, target: Target, plan: LabelPlan, name: str, settler: Settler | None,
        stop: Callable[[], bool], on_batch: Callable[[Sent], None] | None,
    ) -> None:  # fmt: skip
        self._writer, self._target, self._plan, self._name = writer, target, plan, name
        self._settler, self._stop, self._on_batch = settler, stop, on_batch
        self._queue, self._heart = LabelQueue(plan), Heartbeat()
        self._counts = {"batches": 0, "rows": 0, "delayed": 0, "audit": 0}
        self._version: str | None = None
        self._began = self._flushed = time.monotonic()

    def publish(self, outputs: Iterable[Out]) -> None:
        for out in outputs:
            self._writer.send(out)

    def batch(self, k: int, batch: Batch) -> bool:
        """Send batch k and the labels due after it. False: asked to stop before it was settled."""
        batch_id = batch.batch_id or f"{self._name}-{k:06d}"
        ids = (
            list(batch.ids) if batch.ids is not None else [f"{batch_id}-{i:03d}" for i in range(1, len(batch.rows) + 1)]
        )
        lockstep = self._settler is not None
        value = encode_batch(batch, batch_id, ids, stream_time(k) if lockstep else wall_clock())
        headers = {"lockstep": "1"} if lockstep else {}
        version = self._version
        if version is not None:
            headers["adapter"] = version
        self._writer.send(Out(self._target.transactions, batch_id, value, headers))
        crash_point("producer.between-batch-and-labels")
        due = [] if batch.labels is None else self._queue.add(batch_id, ids, batch.labels)
        self._labels([*due, *batch.follow])
        self._counts["batches"] += 1
        self._counts["rows"] += len(ids)
        self._heart.beat()
        if time.monotonic() - self._flushed >= FLUSH_EVERY_S:
            crash_point("producer.before-flush")
            self._writer.flush()
            self._flushed = time.monotonic()
        if self._settler is not None:
            self._version = self._settler.wait(batch_id, value, self._stop)
            if self._version is None:
                return False
        if self._on_batch is not None:
            self._on_batch(Sent(k, batch_id, len(ids), version, self._version))
        return True

    def finish(self) -> Produced:
        """Labels still outstanding go out where the plan says so; all is acknowledged after this."""
        if self._plan.flush:
            self._labels(self._queue.rest())
        self._writer.flush()
        c = self._counts
        took_s = round(time.monotonic() - self._began, 3)
        return Produced(self._name, c["batches"], c["rows"], c["delayed"], c["audit"], self._queue.outstanding, took_s)

    def _labels(self, due: Iterable[records.Labels]) -> None:
        if self._target.labels is None:
            return
        for each in due:
            self._writer.send(Out(self._target.labels, each.batch_id, records.encode(each)))
            self._counts[each.kind] += 1


def encode_batch(batch: Batch, batch_id: str, ids: list[str], created_at: str) -> bytes:
    """The transactions record. Features are written in single precision, as scorers read them: half the bytes.

    Raises OperatorError where a drift takes a number beyond it.
    """
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(batch.rows, np.float32)
    if not np.isfinite(rows).all():
        raise OperatorError(f"{batch_id}: a feature is not finite in single precision; is a drift step too strong?")
    body: dict[str, Any] = {
        "batch_id": batch_id, "transaction_ids": ids, "features": rows, "created_at": batch.created_at or created_at,
    }  # fmt: skip
    if batch.amounts is not None:
        body["amounts"] = list(batch.amounts)
    return records.encode(body)


def unique_name(slot: str) -> str:
    """A run's name that sorts by its start and that no other start of this slot has had."""
    left, text = epoch_ms(), ""
    while left:
        left, digit = divmod(left, len(_DIGITS))
        text = _DIGITS[digit] + text
    return f"r{text}" if slot == "0" else f"r{text}-{slot}"


def _checked_name(name: str) -> str:
    if not _RUN.fullmatch(name):
        raise OperatorError(f"run name {name!r}: use letters, digits, '.', '_' and '-', at most 100")
    return name


def _check(batches: int | None, lockstep: bool, labels: LabelPlan, to: Target | None) -> None:
    if batches is not None and batches < 1:
        raise OperatorError(f"{batches} batches: give 1 or more, or leave it out")
    if lockstep and to is not None:
        raise OperatorError("lockstep waits for a pipeline's metrics: give its prefix, not a topic")
    if lockstep and labels.delay not in (0, None):
        raise OperatorError(
            "lockstep: labels must come at once (label delay 0) or, with policy guarded, never; late ones would meet "
            "the monitor at another moment in every run"
        )
