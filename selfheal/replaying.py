"""`selfheal replay`: a recorded stream through a fresh pipeline, as it was scored or anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.console import Console

from producer import drift_text
from producer.answers import await_answers
from producer.compare import Comparison, compare
from producer.replay import anew, as_recorded
from producer.service import Produced
from producer.span import Span
from producer.target import Target
from selfheal.local import SERVICES, LocalPipeline
from shared import bundle as bundles
from shared.kafka import Follower
from shared.records import Metrics, decode
from shared.settings import ProducerSettings
from shared.topics import topic_name

READY_S = 60.0
QUIET_S = 10.0  # a batch whose labels never came stays unsettled: stop waiting when nothing moves any more


class Plan(NamedTuple):
    """Common to both ways. span: what to read. rate: batches/s. services: run those of the fresh pipeline here, for
    as long as it takes, with so many scorers and their logs in run_dir; else they must run already."""

    span: Span
    bundle: Path
    run_dir: Path
    rate: float | None = None
    services: bool = True
    scorers: int = 1

    def pipeline(self, kafka: Mapping[str, Any], prefix: str, *services: str) -> LocalPipeline:
        """The named services, or none of them."""
        without = [s for s in SERVICES if s not in services or not self.services]
        return LocalPipeline(kafka, prefix, self.bundle, scorers=self.scorers, without=without, run_dir=self.run_dir)


def recorded(
    console: Console, kafka: Mapping[str, Any], settings: ProducerSettings, plan: Plan, *, origin: str
) -> Comparison:
    """Each batch by the adapter that scored it then; whether the probabilities are the same bits.

    Raises OperatorError.
    """
    sent = as_recorded(
        settings, kafka, origin=origin, span=plan.span, rate=plan.rate, bundle=bundles.load(plan.bundle).hash
    )  # the topics first: it insists on a fresh prefix
    _say(console, f"{sent.batches} batches, {sent.dead} dead letters and {sent.adapters} adapters sent to ", settings)
    if sent.unscored:
        _say(console, f"{sent.unscored} records of the range had no answer then and were not sent to ", settings)
    with plan.pipeline(kafka, settings.prefix, "scorer") as pipeline:
        pipeline.wait_ready(READY_S)
        await_answers(kafka, settings.prefix, sent.sent)
    return compare(kafka, origin, settings.prefix)


def afresh(
    console: Console, kafka: Mapping[str, Any], settings: ProducerSettings, plan: Plan, *, origin: Target,
    drift: Sequence[str], lockstep: bool, batches: int | None, run_name: str | None, to: Target | None,
) -> Produced:  # fmt: skip
    """The rows, drifted or not, through a pipeline that decides for itself, or onto a named topic (to).

    Raises OperatorError.
    """
    steps, features = drift_text.parse(drift), bundles.load(plan.bundle).features

    def send() -> Produced:
        return anew(
            settings, kafka, origin=origin, features=features, span=plan.span, steps=steps, batches=batches,
            rate=plan.rate, lockstep=lockstep, run_name=run_name, to=to,
        )  # fmt: skip

    if to is not None:
        return send()
    with plan.pipeline(kafka, settings.prefix, "scorer", "healer", "monitor") as pipeline:
        pipeline.wait_ready(READY_S)
        sent = send()
        _say(console, f"{sent.batches} batches sent to ", settings)
        rows = _settled(kafka, settings.prefix, sent.batches)
    _summary(console, rows)
    return sent


def _say(console: Console, text: str, settings: ProducerSettings) -> None:
    console.print(text + topic_name("transactions", settings.prefix), soft_wrap=True)


def _settled(
    kafka: Mapping[str, Any], prefix: str, count: int, clock: Callable[[], float] = time.monotonic
) -> list[Metrics]:
    """The rows of a fresh pipeline once `count` of them are settled, or nothing came for QUIET_S."""
    rows: dict[str, Metrics] = {}
    moved = clock()
    with closing(Follower(kafka, [topic_name("metrics", prefix)], name="replay-metrics")) as follower:
        while sum(row.settled for row in rows.values()) < count and clock() - moved < QUIET_S:
            for record in follower.take(0.2):
                row = decode(Metrics, record.value)
                rows[row.batch_id], moved = row, clock()
    return sorted(rows.values(), key=lambda row: row.batch_idx)


def _summary(console: Console, rows: list[Metrics]) -> None:
    known = [r for r in rows if r.accuracy_healed is not None and r.accuracy_shadow is not None]
    console.print(f"{len(rows)} batches judged, {sum(r.settled for r in rows)} settled, {len(known)} with labels")
    if known:
        served, frozen = fmean(r.accuracy_healed or 0 for r in known), fmean(r.accuracy_shadow or 0 for r in known)
        heals = sum(r.action.startswith("heal") for r in known)
        console.print(
            f"mean accuracy {served:.3f} as served, {frozen:.3f} frozen ({served - frozen:+.3f}); {heals} heals, "
            f"{sum(r.rolled_back for r in known)} rollbacks, {known[-1].next_version} active at the end",
            soft_wrap=True,
        )
