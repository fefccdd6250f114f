"""One seed of a variant through the four real processes, in lockstep, and whether it went as in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from monitor.export import CLOCKED, Run, export_run
from producer.scenarios import CLEAN
from selfheal.experiment.runs import QUIET_S, READY_S, follow
from selfheal.gauntlet.play import trained
from selfheal.gauntlet.run import Stream, play
from selfheal.gauntlet.world import BATCH_ROWS, Variant, variant
from selfheal.local import LocalPipeline
from shared.errors import OperatorError
from shared.kafka import delete_topics
from shared.records import Event, Metrics
from shared.topics import TOPICS, topic_name


class Compared(msgspec.Struct, frozen=True):
    """One variant: as it went over Kafka, in memory, and how they differ; differences is empty where they are equal."""

    name: str
    over: Run
    inside: Stream
    differences: list[str]


def run_over_kafka(
    kafka: Mapping[str, Any], names: Sequence[str], seed: int, folder: Path, *,
    on_batch: Callable[[], None] = lambda: None, drifted: int | None = None, keep: bool = False,
) -> Iterator[Compared]:  # fmt: skip
    """Each variant in turn, its run folder under folder/NAME. drifted: batches, other than the variant's own. keep:
    leave the topics. Raises OperatorError: a variant with labels, a service that fails, a batch that stays open."""
    variants = [variant(name, drifted) for name in names]
    for each in variants:
        if each.labelled:
            raise OperatorError(
                f"{each.name}: labels that come late meet the monitor at another moment in every run, so only "
                "variants without labels are compared over Kafka"
            )
    for each in variants:
        yield _compared(kafka, each, seed, folder / each.name, on_batch, keep)


def _compared(
    kafka: Mapping[str, Any], one: Variant, seed: int, folder: Path, on_batch: Callable[[], None], keep: bool
) -> Compared:
    folder.mkdir(parents=True, exist_ok=True)
    kit = trained(folder / "bundle", seed, one.scene.generator)
    inside = play(one, seed, kit)
    prefix = f"gauntlet-{os.getpid()}-{one.name}-{seed}"
    batches = CLEAN + one.drifted
    arguments = [
        "--lockstep", "--batches", str(batches), "--rows", str(BATCH_ROWS), "--run", f"s{seed}",
        "--scenario", one.scene.name, "--seed", str(seed), "--label-delay", "never",
    ]  # fmt: skip
    try:
        with LocalPipeline(
            kafka, prefix, folder / "bundle", policy="guarded", run_dir=folder, partitions=1, producer=arguments
        ) as pipeline:
            pipeline.wait_ready(READY_S)
            follow(kafka, prefix, pipeline, batches, on_batch, lambda: False)
        over = export_run(kafka, prefix, folder, budget_s=QUIET_S)
    finally:
        if not keep:
            delete_topics(kafka, [topic_name(name, prefix) for name in TOPICS])
    return Compared(one.name, over, inside, list(differences(over, inside.told)))


def differences(over: Run, inside: Run) -> Iterator[str]:
    """In the order of the stream, one line each: rows, then events, less what a clock measured."""
    for a, b in zip_longest(over.rows, inside.rows):
        if a != b:
            yield f"batch {(a or b).batch_idx}: over Kafka {_row(a)}, in memory {_row(b)}"
    for x, y in zip_longest(map(_event, over.events), map(_event, inside.events)):
        if x != y:
            yield f"event: over Kafka {_said(x)}, in memory {_said(y)}"
    if over.active != inside.active:
        yield f"active at the end: over Kafka {over.active}, in memory {inside.active}"


def _event(event: Event) -> Event:
    facts = {k: v for k, v in event.facts.items() if k not in CLOCKED}
    return msgspec.structs.replace(event, facts=facts)


def _said(event: Event | None) -> str:
    return "nothing" if event is None else f"{event.kind} at {event.at} ({event.message}; {event.facts})"


def _row(row: Metrics | None) -> str:
    return "nothing" if row is None else f"{row.adapter_version} -> {row.next_version}, {row.verdict}, {row.action}"
