"""An audit from end to end: what is read in which order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from audit import causes, heals, lockstep
from audit.adapters import Adapters
from audit.answers import Answers
from audit.events import Events
from audit.history import History, read_order
from audit.kafka_log import KafkaLog
from audit.letters import unreal
from audit.log import Log
from audit.metrics import Metrics
from audit.network import Bundle, read_bundle
from audit.offsets import check_offsets, check_state
from audit.report import Report
from audit.scoring import Scoring


def run(
    kafka: Mapping[str, Any], prefix: str, bundle_dir: Path, *, sample: int | None = None, complete: bool = False,
    lag_s: float = 60.0, skew_s: float = 1.0, budget_s: float = 60.0, on_read: Callable[[int], None] = lambda _: None,
) -> Report:  # fmt: skip
    """Audit one pipeline from its topics, and from nothing else but the bundle that its scorers run.

    kafka: librdkafka settings. sample: rows of each batch whose probabilities are computed again; None: all.
    complete: what is not yet scored, judged or answered is an offence. lag_s: longest that a scorer may serve by an
    older control record. skew_s: how far the clocks of the services' machines may differ. budget_s: longest wait
    without progress. on_read: told how many more records were read. Raises CannotAudit.
    """
    began = time.monotonic()
    bundle = read_bundle(bundle_dir)
    with closing(KafkaLog(kafka, prefix, budget_s=budget_s, on_read=on_read)) as log:
        report = audit(log, bundle, sample=sample, complete=complete, lag_s=lag_s, skew_s=skew_s)
    report.took_s = time.monotonic() - began
    return report


def audit(
    log: Log, bundle: Bundle, *, sample: int | None = None, complete: bool = False, lag_s: float = 60.0,
    skew_s: float = 1.0,
) -> Report:  # fmt: skip
    """The same, of any log. Raises CannotAudit."""
    report = Report()
    events = Events(log)
    refused, refused_records = events.refused()
    orders = []
    for record in log.read("control"):
        if record.where in refused_records:
            report.count("control records that scorers refused")
        elif (order := read_order(record)) is not None:
            orders.append(order)
    adapters = Adapters(log, bundle)
    adapters.read(report, refused_records, {a.request_id for a in events.asked if a.request_id})
    published = {v: made.record.at_ms for v, made in adapters.published.items()}
    history = History(
        orders, published, refused, lag_s=lag_s, skew_s=skew_s, one_scorer=len(events.scorers) == 1
    )  # fmt: skip

    answers = Answers(log, report, bundle.d, complete=complete)
    scoring = Scoring(log, report, bundle, adapters, history, sample)
    metrics = Metrics(log, report, bundle, events, answers.letters_of_others, skew_s)
    named = lockstep.Named()
    answers.index()
    scoring.index()
    metrics.index()
    for answered in answers.walk():
        scoring.check(answered)
        metrics.add(answered)
        named.add(answered)
        if answered.letter is not None:
            why = unreal(answered, bundle, adapters, history, lag_s)
            report.check("contents", not why, answered.letter.record.where, why)
    scoring.left_over()
    answers.check_events(events.unreadable)
    metrics.read()
    named.check(report, metrics)
    heals.check(log, report, events, adapters, answers.letters_of_others, skew_s, complete=complete)
    causes.check(log, report, events, orders, metrics)
    lockstep.check_causes(report, events, orders, metrics)
    check_offsets(log, report, complete=complete)
    check_state(log, report, orders, max(metrics.rows, default=0))
    return report
