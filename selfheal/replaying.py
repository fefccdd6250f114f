"""`selfheal replay`: a recorded stream through a fresh pipeline, as it was scored or anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from monitor.export import read_run
from producer import drift_text
from producer.answers import await_answers
from producer.compare import Comparison, compare
from producer.replay import anew, as_recorded
from producer.service import Produced
from producer.span import Span
from producer.target import Target
from selfheal.local import SERVICES, LocalPipeline
from selfheal.replay_outcome import await_settled, tell
from shared import bundle as bundles
from shared.settings import ProducerSettings
from shared.topics import topic_name

READY_S = 60.0


class Plan(NamedTuple):
    """Common to both ways. span: what to read. rate: batches/s. services: run those of the fresh pipeline here, for
    as long as it takes, with so many scorers, the monitor's policy, and their logs in run_dir; else they must run
    already."""

    span: Span
    bundle: Path
    run_dir: Path
    rate: float | None = None
    services: bool = True
    scorers: int = 1
    policy: str = "guarded"

    def pipeline(self, kafka: Mapping[str, Any], prefix: str, *services: str) -> LocalPipeline:
        """The named services, or none of them."""
        without = [s for s in SERVICES if s not in services or not self.services]
        return LocalPipeline(
            kafka, prefix, self.bundle, scorers=self.scorers, without=without, policy=self.policy, run_dir=self.run_dir
        )


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
        await_settled(kafka, settings.prefix, sent.batches)
    tell(console, settings.prefix, read_run(kafka, settings.prefix))
    return sent


def _say(console: Console, text: str, settings: ProducerSettings) -> None:
    console.print(text + topic_name("transactions", settings.prefix), soft_wrap=True)
