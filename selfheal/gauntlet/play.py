"""Every variant on many seeds, in worker processes that end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from producer.generator import Generator
from producer.heavy import HeavyTails
from selfheal.gauntlet.memory import Kit
from selfheal.gauntlet.quiet import STREAM, Quiet, quiet, together
from selfheal.gauntlet.run import Stream
from selfheal.gauntlet.run import play as play_one
from selfheal.gauntlet.summary import Figures, figures
from selfheal.gauntlet.world import Variant, variant
from selfheal.training import train
from shared.telemetry import set_up_logging

PROCESSES = 2
T = TypeVar("T")


class Task(NamedTuple):
    """What one bundle is trained for: variants of one generator, or quiet streams of so many batches each."""

    seed: int
    names: tuple[str, ...]
    quiet: int = 0


def play(
    seeds: Sequence[int], names: Sequence[str], *, processes: int = PROCESSES,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Figures]:  # fmt: skip
    """Every variant on every seed. Each seed trains its own bundles. on_done: told how many streams are done."""
    groups = list(_grouped([variant(name) for name in names]).values())
    tasks = [Task(seed, tuple(v.name for v in group)) for seed in seeds for group in groups]
    found: dict[tuple[str, int], Stream] = {}
    for task, streams in _pooled(_streams, tasks, processes):
        found |= {(name, task.seed): stream for name, stream in streams.items()}
        if on_done is not None:
            on_done(len(streams))
    return {name: figures(variant(name), [found[name, seed] for seed in seeds]) for name in names}


def play_quiet(
    first_seed: int, batches: int, *, processes: int = PROCESSES, on_done: Callable[[int], None] | None = None
) -> list[Quiet]:
    """So many quiet batches in all, in streams of 500, each with its own model: without labels, and with. on_done:
    told how many batches are done."""
    streams = max(batches // (2 * STREAM), 1)
    each = max(batches // (2 * streams), 1)
    tasks = [Task(first_seed + i, ("S0", "S0L"), each) for i in range(streams)]
    found: list[Quiet] = []
    for _, done in _pooled(_quiet, tasks, processes):
        found += done
        if on_done is not None:
            on_done(sum(q.batches for q in done))
    return [together(found, labelled=False), together(found, labelled=True)]


def trained(folder: Path, seed: int, generator: Generator) -> Kit:
    """The seed's own model, and what the services make of it."""
    return Kit(train(folder, seed=seed, generator=generator))


def _grouped(variants: Sequence[Variant]) -> dict[tuple[bool, Generator], list[Variant]]:
    groups: dict[tuple[bool, Generator], list[Variant]] = {}
    for each in variants:
        generator = each.scene.generator
        groups.setdefault((isinstance(generator, HeavyTails), generator), []).append(each)
    return groups


def _streams(task: Task) -> tuple[Task, dict[str, Stream]]:
    variants = [variant(name) for name in task.names]
    with tempfile.TemporaryDirectory() as folder:
        kit = trained(Path(folder), task.seed, variants[0].scene.generator)
        return task, {v.name: play_one(v, task.seed, kit) for v in variants}


def _quiet(task: Task) -> tuple[Task, list[Quiet]]:
    variants = [variant(name) for name in task.names]
    with tempfile.TemporaryDirectory() as folder:
        kit = trained(Path(folder), task.seed, variants[0].scene.generator)
        return task, [quiet(v, task.seed, kit, task.quiet) for v in variants]


def _pooled(work: Callable[[Task], tuple[Task, T]], tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, T]]:
    """In the order they are done. Leaving this, by Ctrl-C too, ends the workers."""
    if processes == 1:
        yield from map(work, tasks)
        return
    # spawn: a forked copy of a process that has threads may hang on a lock that one of them held
    with multiprocessing.get_context("spawn").Pool(min(processes, len(tasks)), _ready) as pool:
        yield from pool.imap_unordered(work, tasks)


def _ready() -> None:
    """A worker: Ctrl-C is the parent's to handle, who ends it; it does not outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    set_up_logging("ERROR")
