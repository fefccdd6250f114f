"""`selfheal experiment ..`: the published experiment over Kafka, and the gauntlet of drifts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, DataDir

app = typer.Typer(no_args_is_help=True, help="Experiments that leave a run folder: metrics, pictures, a report.")


@app.command()
def reference(
    seed: Annotated[int, typer.Option(min=0, help="The first seed: of the training, the stream, the test rows.")] = 42,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Run N seeds and give medians and 90% intervals.")] = 1,
    stress: Annotated[
        bool,
        typer.Option("--stress", help="A stronger drift (3.5) and a touchier rule (0.03): shows a rollback happening."),
    ] = False,
    drift_strength: Annotated[
        float | None, typer.Option(show_default="2.2; stress: 3.5", help="How far normals move down on V14.")
    ] = None,
    heal_steps: Annotated[int, typer.Option(min=1, help="Adam steps a heal.")] = 5,
    heal_lr: Annotated[float, typer.Option(help="Learning rate of a heal.")] = 0.003,
    fidi_threshold: Annotated[float, typer.Option(help="FIDI's z above which a feature counts as drifted.")] = 1.0,
    rollback_f1_drop: Annotated[
        float | None,
        typer.Option(show_default="0.08; stress: 0.03", help="Mean F1 this far below the baseline rolls back."),
    ] = None,
    conflict_min: Annotated[int, typer.Option(min=1, help="Conflicts in a batch that ask for a heal.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="runs/reference-<time>", help="The run folder, made if missing."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the runs' topics on the broker, to tail them.")] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """The published experiment: 25 drifted batches, healed as published, beside its own numbers and honest ones.

    Over Kafka, in lockstep: the same seed gives the same metrics.csv, byte for byte.
    """
    from selfheal.process import end_on_sigterm, one_thread

    one_thread()
    end_on_sigterm()
    from rich.console import Console

    from selfheal.experiment import run_reference
    from selfheal.where import kafka_or_embedded
    from shared.telemetry import set_up_logging

    set_up_logging("WARNING")
    console = Console()
    with kafka_or_embedded(data_dir) as cluster:
        folder = run_reference(
            cluster.kafka, console, seed=seed, seeds=seeds, stress=stress, drift_strength=drift_strength,
            heal_steps=heal_steps, heal_lr=heal_lr, fidi_threshold=fidi_threshold,
            rollback_f1_drop=rollback_f1_drop, conflict_min=conflict_min, out=out, keep=keep,
        )  # fmt: skip
    console.print(f"report: {folder / 'report.md'}", soft_wrap=True)


@app.command()
def gauntlet(
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Streams per scenario, each with its own model.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 100,
    scenarios: Annotated[
        str | None,
        typer.Option(metavar="S1,S4,..", show_default="all", help="Which; S4t3 is S4 on heavy-tailed features."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="nothing is written", help="For gauntlet.json.")
    ] = None,
) -> None:
    """Diagnosis and healing without labels, on every kind of drift we can name: what is recovered, what is refused.

    In-process, a preview: the services do not heal this way yet. About 50 s a seed on one core.
    """
    from selfheal.process import end_on_sigterm, one_thread

    one_thread()
    end_on_sigterm()
    from rich.console import Console
    from rich.progress import Progress

    from selfheal.gauntlet.play import NAMES, play
    from selfheal.gauntlet.summary import as_json, table
    from shared.bundle import write_whole
    from shared.errors import OperatorError

    names = tuple(scenarios.split(",")) if scenarios else NAMES
    if unknown := [n for n in names if n.removesuffix("t3") not in NAMES]:
        raise OperatorError(f"--scenarios {unknown[0]}: choose from {', '.join(NAMES)}, each also with t3 behind it")
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("seeds", total=seeds)
        found = play(range(first_seed, first_seed + seeds), names, on_seed=lambda _: progress.advance(task))
    Console().print(table(found), soft_wrap=True, highlight=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "gauntlet.json", as_json(found, seeds))
