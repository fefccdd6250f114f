"""One seed: its bundle, both variants over Kafka, then everything that its run folder holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monitor import plots
from monitor.export import Run
from selfheal.experiment.ceiling import Ceiling
from selfheal.experiment.evaluate import Outcome, evaluate
from selfheal.experiment.report import report
from selfheal.experiment.rollbacks import rollbacks
from selfheal.experiment.runs import Variant, run_variant
from selfheal.experiment.summary import Numbers, Parameters, encoded, of_seed
from selfheal.training import train
from shared.adapters import Adapter, first_adapter, unpack
from shared.bundle import Bundle, Scores, write_whole
from shared.errors import OperatorError
from shared.kafka import delete_topics, read_all
from shared.records import FIRST_VERSION, Metrics
from shared.topics import TOPICS, topic_name

VARIANTS: tuple[Variant, ...] = ("clean", "as_published")
_training = threading.Lock()  # one at a time: torch's sums are the same in any company, but two would not be quicker


class Seed:
    """run() each variant, from any thread, then finish()."""

    def __init__(self, seed: int, folder: Path, parameters: Parameters) -> None:
        self.seed, self.folder, self.parameters = seed, folder, parameters
        self.runs: dict[Variant, Run] = {}
        self._adapters: dict[Variant, Adapter] = {}
        self._bundle: Bundle | None = None

    def run(
        self, kafka: Mapping[str, Any], prefix: str, variant: Variant, *, keep: bool, on_batch: Callable[[], None],
        cancelled: Callable[[], bool],
    ) -> None:  # fmt: skip
        """One variant over Kafka under its own prefix; its topics are deleted afterwards unless kept."""
        bundle = self._trained()
        folder = self.folder if variant == "clean" else self.folder / "as-published"
        try:
            run = run_variant(
                kafka, prefix, self.folder / "bundle", folder, seed=self.seed, variant=variant,
                parameters=self.parameters, on_batch=on_batch, cancelled=cancelled,
            )  # fmt: skip
            self._adapters[variant] = adapter_at(kafka, prefix, run.active, bundle)
            self.runs[variant] = run
        finally:
            if not keep:
                delete_topics(kafka, [topic_name(name, prefix) for name in TOPICS])

    def finish(self, best: Ceiling, *, command: str, stress: bool) -> Numbers:
        """Pictures, summary.json, report.md; returns the summary."""
        bundle, run = self._trained(), self.runs["clean"]
        outcomes = evaluate(
            bundle, self._adapters["clean"], self._adapters["as_published"], self.seed, self.parameters.drift_strength
        )
        plots.draw(
            run, stage_bars(run, outcomes), self.folder / "plots", feature=bundle.manifest.watched,
            all_negative=outcomes["all_negative"].accuracy,
        )  # fmt: skip
        summary = of_seed(self.seed, self.parameters, self.runs, outcomes, best)
        write_whole(self.folder / "summary.json", encoded(summary))
        text = report(
            summary, self.parameters, best, command=command, rollbacks=rollbacks(run), stress=stress
        )  # fmt: skip
        write_whole(self.folder / "report.md", text.encode())
        return summary

    def _trained(self) -> Bundle:
        with _training:
            if self._bundle is None:
                self._bundle = train(self.folder / "bundle", seed=self.seed)
            return self._bundle


def adapter_at(kafka: Mapping[str, Any], prefix: str, version: str, bundle: Bundle) -> Adapter:
    """An adapter of the registry, checked as a scorer checks it. Raises OperatorError when it is not there."""
    if version == FIRST_VERSION:
        return first_adapter(bundle)
    for record in reversed(read_all(kafka, topic_name("adapters", prefix))):
        if record.key == version.encode():
            return unpack(record.key, record.value, record.headers, bundle)
    raise OperatorError(f"{version} is active but not on {topic_name('adapters', prefix)}")


def stage_bars(run: Run, outcomes: Mapping[str, Outcome]) -> dict[str, Scores]:
    """For the picture: the stages on the table's rows, and the shadow as it went beside the stream."""
    kinds = ("accuracy", "precision", "recall", "f1")
    shadow = {kind: _mean(run.rows, f"{kind}_shadow") for kind in kinds}
    return {
        "clean": outcomes["clean"].scores,
        "drift": outcomes["drift"].scores,
        "shadow, mean of the batches": Scores(**shadow),
        "healed": outcomes["healed"].scores,
    }


def _mean(rows: Iterable[Metrics], column: str) -> float:
    return float(np.mean([getattr(row, column) for row in rows]))
