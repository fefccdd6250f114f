"""One variant of one seed over Kafka: four processes of their own, a fresh prefix, 25 batches in lockstep."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from monitor.export import Run, export_run
from producer.generator import REFERENCE
from selfheal.experiment.evaluate import stream_rows_as_published
from selfheal.experiment.published import BATCH_ROWS
from selfheal.experiment.summary import Parameters
from selfheal.local import LocalPipeline
from shared.bundle import write_whole
from shared.errors import OperatorError, SelfhealError
from shared.kafka import Deadline, Follower
from shared.records import Metrics, decode
from shared.topics import topic_name

Variant = Literal["clean", "as_published"]
READY_S, QUIET_S = 120.0, 120.0
LABEL = "fraud"


class Cancelled(SelfhealError):
    """The experiment was ended; this pipeline with it."""


def run_variant(
    kafka: Mapping[str, Any], prefix: str, bundle: Path, folder: Path, *, seed: int, variant: Variant,
    parameters: Parameters, on_batch: Callable[[], None] = lambda: None, cancelled: Callable[[], bool] = lambda: False,
) -> Run:  # fmt: skip
    """Run it, write metrics.csv, events.json, threshold_config.json and logs/ into the folder.

    clean: the producer's own drifted stream. as_published: batches resampled from the table's rows, out of a CSV
    file. on_batch: told when a batch is settled. cancelled: asked now and then. Raises OperatorError
    when a service fails or a batch stays open, Cancelled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with LocalPipeline(
        kafka, prefix, bundle, thresholds=parameters.thresholds(), policy="reference", run_dir=folder, partitions=1,
        producer=producer_arguments(folder, seed, variant, parameters),
    ) as pipeline:  # fmt: skip
        pipeline.wait_ready(READY_S)
        follow(kafka, prefix, pipeline, parameters.batches, on_batch, cancelled)
    run = export_run(kafka, prefix, folder)
    unsettled = [row.batch_id for row in run.rows if not row.settled]
    if len(run.rows) != parameters.batches or unsettled:
        raise OperatorError(
            f"{prefix}: {len(run.rows)} of {parameters.batches} batches were judged, not settled: {unsettled}; "
            f"see {folder / 'logs'}"
        )
    return run


def producer_arguments(folder: Path, seed: int, variant: Variant, parameters: Parameters) -> list[str]:
    """What follows `selfheal produce`. as_published: writes the stream's CSV file into the folder first."""
    common = ["--lockstep", "--batches", str(parameters.batches), "--rows", str(BATCH_ROWS), "--run", f"s{seed}"]
    if variant == "clean":
        strength = repr(parameters.drift_strength)
        return [*common, "--scenario", "reference", "--strength", strength, "--seed", str(seed)]
    path = folder / "stream.csv"
    write_whole(path, stream_csv(seed, parameters))
    return [*common, "--csv", str(path), "--label-column", LABEL]


def stream_csv(seed: int, parameters: Parameters) -> bytes:
    """The as-published stream: a row a line, in the order of the batches, exact to the last bit of a float32."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*REFERENCE.features, LABEL])
    for batch in stream_rows_as_published(seed, parameters.drift_strength, parameters.batches):
        for x, y in zip(batch.x, batch.y, strict=True):
            out.writerow([*(str(v) for v in x), int(y)])
    return text.getvalue().encode()


def follow(
    kafka: Mapping[str, Any], prefix: str, pipeline: LocalPipeline, batches: int, on_batch: Callable[[], None],
    cancelled: Callable[[], bool],
) -> None:  # fmt: skip
    """Until the producer is through: its own deadlines bound each batch, this one only a producer that hangs."""
    follower = Follower(kafka, [topic_name("metrics", prefix)], name="experiment")
    settled: set[str] = set()
    quiet = Deadline(QUIET_S)
    try:
        while not pipeline.ended("producer"):
            for record in follower.take(0.2):
                row = decode(Metrics, record.value)
                if row.settled and row.batch_id not in settled:
                    settled.add(row.batch_id)
                    quiet = Deadline(QUIET_S)
                    on_batch()
            _insist_on(pipeline)
            if cancelled():
                raise Cancelled(prefix)
            if quiet.passed():
                raise OperatorError(f"{prefix}: no batch settled for {QUIET_S:g} s, {len(settled)} of {batches} before")
        _insist_on(pipeline)
    finally:
        follower.close()


def _insist_on(pipeline: LocalPipeline) -> None:
    for child in pipeline.failed():
        raise OperatorError(f"{child.name} ended, exit code {child.exit_code}. {child.log}:\n{child.log_tail()}")
