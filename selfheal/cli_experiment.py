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
    from selfheal.process import end_on_signals, one_thread

    one_thread()
    end_on_signals()
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
        typer.Option(
            metavar="S1,S4,..", show_default="all",
            help="Which. S4t3 is S4 on heavy-tailed features, S9L is S9 with labels that come 20 batches late.",
        ),
    ] = None,
    quiet_batches_to_run: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Besides, so many batches without drift, half of them with labels: what is put in "
            "force, and taken back, for nothing?",
        ),
    ] = 0,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="Worker processes.")] = 2,
    over_kafka: Annotated[
        bool,
        typer.Option(
            "--kafka", help="One seed of each scenario through four real processes instead; it must go as in memory."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", show_default="nothing is written", help="For gauntlet.json and a report; made if missing."
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:  # fmt: skip
    """Every kind of drift we can name, healed under policy guarded: what is recovered, what is refused.

    In memory, through the services' own functions: about a minute a seed and process. With --kafka over a broker.
    """
    from selfheal.process import end_on_signals, one_thread

    one_thread()
    end_on_signals()
    from selfheal.gauntlet.told import in_memory, on_kafka
    from selfheal.gauntlet.world import ALL, variant
    from shared.telemetry import set_up_logging

    set_up_logging("ERROR")
    names = tuple(dict.fromkeys(scenarios.split(","))) if scenarios else ALL
    for name in names:
        variant(name)  # an unknown one is told before anything is trained
    if over_kafka:
        from selfheal.where import kafka_or_embedded

        with kafka_or_embedded(data_dir) as cluster:
            equal = on_kafka(cluster.kafka, names if scenarios else None, first_seed, out)
        raise typer.Exit(0 if equal else 1)
    in_memory(names, first_seed, seeds, quiet_batches_to_run, processes, out)
