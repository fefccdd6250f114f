"""What `selfheal experiment gauntlet` shows while it runs, and leaves in its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monitor.export import events_json
from producer.scenarios import CLEAN
from selfheal.gauntlet.over_kafka import run_over_kafka
from selfheal.gauntlet.play import play, play_quiet
from selfheal.gauntlet.report import write
from selfheal.gauntlet.tables import as_json, quiet_table, table
from selfheal.gauntlet.world import ALL, variant
from shared.bundle import write_whole

DIFFERENCES_SHOWN = 5


def in_memory(
    names: Sequence[str], first_seed: int, seeds: int, quiet_batches: int, processes: int, out: Path | None
) -> None:
    """Play, print the tables, write gauntlet.json and the report. quiet_batches: in all, 0 for none."""
    with _progress() as progress:
        bar = progress.add_task("streams", total=seeds * len(names))
        found = play(
            range(first_seed, first_seed + seeds), names, processes=processes,
            on_done=lambda n: progress.advance(bar, n),
        )  # fmt: skip
        quiet = []
        if quiet_batches:
            bar = progress.add_task("quiet batches", total=quiet_batches)
            quiet = play_quiet(
                first_seed, quiet_batches, processes=processes, on_done=lambda n: progress.advance(bar, n)
            )
    _say(table(found))
    if quiet:
        _say(quiet_table(quiet))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "gauntlet.json", as_json(found, first_seed, seeds, quiet))
        _say(f"report: {write(out)}")


def on_kafka(kafka: Mapping[str, Any], names: Sequence[str] | None, seed: int, out: Path | None) -> bool:
    """Run each scenario over Kafka and in memory, tell how they differ; whether they do not. names: None for all
    without labels."""
    chosen = names or [name for name in ALL if not variant(name).labelled]
    differ = 0
    with tempfile.TemporaryDirectory() as folder, _progress() as progress:
        runs = out or Path(folder)
        bar = progress.add_task("batches", total=sum(CLEAN + variant(name).drifted for name in chosen))
        for one in run_over_kafka(kafka, chosen, seed, runs, on_batch=lambda: progress.advance(bar)):
            write_whole(runs / one.name / "in-memory-events.json", events_json(one.inside.told.events))
            differ += bool(one.differences)
            same = "as in memory" if not one.differences else f"{len(one.differences)} differences"
            _say(f"{one.name}: {len(one.over.rows)} batches, {len(one.over.events)} events, {same}", progress.console)
            for line in one.differences[:DIFFERENCES_SHOWN]:
                _say(f"  {line}", progress.console)
    return not differ


def _say(text: str, console: Console | None = None) -> None:
    (console or Console()).print(text, soft_wrap=True, highlight=False, markup=False)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
