"""`selfheal experiment reference`: the whole of it, from the seeds to the run folder."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from selfheal.experiment.ceiling import ceiling
from selfheal.experiment.explain import Compared, explain
from selfheal.experiment.more import COUNT, in_processes
from selfheal.experiment.published import (
    BATCHES,
    DRIFT_STRENGTH,
    ROLLBACK_F1_DROP,
    STRESS_DRIFT_STRENGTH,
    STRESS_ROLLBACK_F1_DROP,
)
from selfheal.experiment.report import report
from selfheal.experiment.seeds import VARIANTS, Seed
from selfheal.experiment.summary import Numbers, Parameters, encoded, of_seeds, seeds_csv
from shared.bundle import write_whole

AT_A_TIME = 2  # pipelines: most of a run is processes starting, on as many cores


def run_reference(
    kafka: Mapping[str, Any], console: Console, *, seed: int = 42, seeds: int = 1, stress: bool = False,
    drift_strength: float | None = None, heal_steps: int = 5, heal_lr: float = 0.003, fidi_threshold: float = 1.0,
    rollback_f1_drop: float | None = None, conflict_min: int = 5, out: Path | None = None, keep: bool = False,
    batches: int = BATCHES,
) -> Path:  # fmt: skip
    """Run the published experiment for seeds seed, seed + 1, .. and return the run folder.

    kafka: librdkafka settings of a running broker. drift_strength None: 2.2, or 3.5 under stress;
    rollback_f1_drop None: 0.08, or 0.03 under stress. out None: runs/reference-<time>. keep: leave the topics of
    the runs on the broker. batches: fewer than 25 are for tests, and compared with nothing. Raises OperatorError.
    """
    began = time.monotonic()
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parameters = Parameters(
        drift_strength=_first(drift_strength, STRESS_DRIFT_STRENGTH if stress else DRIFT_STRENGTH),
        heal_steps=heal_steps, heal_lr=heal_lr, fidi_threshold=fidi_threshold,
        rollback_f1_drop=_first(rollback_f1_drop, STRESS_ROLLBACK_F1_DROP if stress else ROLLBACK_F1_DROP),
        conflict_min=conflict_min, batches=batches,
    )  # fmt: skip
    folder = out or Path("runs") / f"reference-{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(seed, seed + seeds)
    all_of = [Seed(n, folder if seeds == 1 else folder / f"seed-{n}", parameters) for n in numbers]
    command, best = _command(parameters, seed, seeds, stress), ceiling(parameters.drift_strength)
    prefix = f"reference-{stamp}-{os.getpid()}"
    summaries: list[Numbers] = []

    def finished(each: Seed) -> None:
        summaries.append(each.finish(best, command=_command(parameters, each.seed, 1, stress), stress=stress))
        console.print(told(summaries[-1]), highlight=False)

    with _progress(console) as progress:
        bar = progress.add_task("batches", total=len(all_of) * len(VARIANTS) * parameters.batches)
        _run_all(kafka, prefix, all_of, finished, keep=keep, on_batch=lambda: progress.advance(bar))
        summaries.sort(key=lambda summary: summary["seeds"])
        if seeds > 1:
            _together(folder, summaries, parameters, command, stress, progress)
    console.print(f"{time.monotonic() - began:.0f} s, run folder {folder}", highlight=False, soft_wrap=True)
    return folder


def _run_all(
    kafka: Mapping[str, Any], prefix: str, seeds: Sequence[Seed], finished: Callable[[Seed], None], *, keep: bool,
    on_batch: Callable[[], None],
) -> None:  # fmt: skip
    """Every variant of every seed, AT_A_TIME at a time; finished is called in this thread when both are through.
    The first failure ends them all."""
    ended = threading.Event()
    pool = ThreadPoolExecutor(min(AT_A_TIME, os.cpu_count() or 1))
    try:
        futures: dict[Future[None], Seed] = {}
        for each in seeds:
            for variant in VARIANTS:
                name = f"{prefix}-s{each.seed}-{variant}"
                call = pool.submit(
                    each.run, kafka, name, variant, keep=keep, on_batch=on_batch, cancelled=ended.is_set
                )  # fmt: skip
                futures[call] = each
        for future in as_completed(list(futures)):
            future.result()
            each = futures.pop(future)
            if each not in futures.values():
                finished(each)
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)


def _together(
    folder: Path, summaries: list[Numbers], parameters: Parameters, command: str, stress: bool, progress: Progress
) -> None:
    """summary.json, seeds.csv and report.md over several seeds."""
    summary, best = of_seeds(summaries), ceiling(parameters.drift_strength)
    compared: Compared | None = None
    if parameters.as_published:
        bar = progress.add_task("further seeds, simulated", total=COUNT)
        more = in_processes(parameters, on_seed=lambda: progress.advance(bar))
        write_whole(folder / "further-seeds.csv", seeds_csv(more))
        compared = explain(summary, more, parameters.drift_strength)
    write_whole(folder / "summary.json", encoded(summary))
    write_whole(folder / "seeds.csv", seeds_csv(summaries))
    text = report(summary, parameters, best, command=command, compared=compared, stress=stress)
    write_whole(folder / "report.md", text.encode())


def told(summary: Numbers) -> str:
    """One line of a seed."""
    accuracy, lift = {k: v["accuracy"] for k, v in summary["stages"].items()}, summary["lift"]
    return (
        f"seed {summary['seeds'][0]}: accuracy {accuracy['clean']:.3f} clean, {accuracy['drift']:.3f} drifted, "
        f"{accuracy['healed']:.3f} healed ({accuracy['healed_as_published']:.3f} as published); "
        f"lift {lift['mean']:+.3f}, positive in {lift['positive_batches']} of {lift['batches']} batches; "
        f"{summary['rollbacks']} rollbacks"
    )


def _first(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given


def _command(parameters: Parameters, seed: int, seeds: int, stress: bool) -> str:
    """What to type to get the same again."""
    usual = Parameters(
        drift_strength=STRESS_DRIFT_STRENGTH if stress else DRIFT_STRENGTH,
        rollback_f1_drop=STRESS_ROLLBACK_F1_DROP if stress else ROLLBACK_F1_DROP,
    )
    words = ["selfheal experiment reference", f"--seed {seed}"]
    words += [f"--seeds {seeds}"] if seeds > 1 else []
    words += ["--stress"] if stress else []
    for name in ("drift_strength", "heal_steps", "heal_lr", "fidi_threshold", "rollback_f1_drop", "conflict_min"):
        if getattr(parameters, name) != getattr(usual, name):
            words.append(f"--{name.replace('_', '-')} {getattr(parameters, name):g}")
    return " ".join(words)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
