"""`selfheal demo`, `up`, `replay` and what they rest on: `broker`, `topics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, PARTS, RUNNING, DataDir, Policy, Prefix

app = typer.Typer()
Partitions = Annotated[
    int,
    typer.Option(
        min=1, max=1_000, metavar="N", help="Of the partitioned topics: at most so many scorers share the work."
    ),
]


@app.command(rich_help_panel=RUNNING)
def demo(data_dir: DataDir = DATA_DIR) -> None:
    """Watch three drifts: one healed, one refused, one repair taken back. Under 90 seconds, nothing to prepare.

    Starts a real Kafka, trains a model, runs the four services under policy guarded. The report with its pictures and
    every number stay in runs/demo-<time>.
    """
    from rich.console import Console

    from selfheal.demo import demo as show
    from selfheal.process import end_on_signals

    end_on_signals()
    show(Console(highlight=False), data_dir=data_dir)


@app.command(rich_help_panel=RUNNING)
def up(
    prefix: Prefix = "",
    scorers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Scorer processes, slots 0 to N-1.")] = 1,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE", help="Leave out producer, scorer, healer or monitor; give it again for another."
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            envvar="SELFHEAL_BUNDLE", metavar="DIR", show_default="DATA_DIR/bundle, trained the first time",
            help="The model that is served.",
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            envvar="MONITOR_THRESHOLDS", metavar="FILE", show_default="the published ones",
            help="threshold_config.json for the monitor.",
        ),
    ] = None,
    policy: Policy = "guarded",
    rate: Annotated[float, typer.Option(min=0, metavar="R", help="Of the producer: batches/s, 0 all it can.")] = 5.0,
    label_delay: Annotated[
        str, typer.Option(metavar="N|never", help="Of the producer: labels follow their batch by N batches.")
    ] = "1",
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="30 clean batches, then V14 arrives x10, on and off",
            help="Of the producer: a named drift (selfheal produce --list-scenarios).",
        ),
    ] = None,
    drift: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Of the producer: a drift step, as in `selfheal produce`.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, show_default="42", help="Of the producer.")
    ] = None,
    partitions: Partitions = 6,
    data_dir: DataDir = DATA_DIR,
) -> None:  # fmt: skip
    """Run everything in the foreground: broker (unless one is given), topics, bundle, services.

    A service that dies is started again, with a back-off and an event. Ctrl-C ends all of it.
    """
    from rich.console import Console

    from selfheal.process import end_on_signals
    from selfheal.up import STREAM
    from selfheal.up import up as run
    from shared.telemetry import set_up_logging
    from shared.topics import check_prefix

    end_on_signals()
    set_up_logging("WARNING")
    named = ["--scenario", scenario] if scenario is not None else []
    steps = [word for step in drift or () for word in ("--drift", step)]
    seeds = [] if seed is None else ["--seed", str(seed)]
    run(
        Console(highlight=False), data_dir=data_dir, prefix=check_prefix(prefix), scorers=scorers,
        without=without or (), bundle=bundle, thresholds=thresholds, policy=policy, partitions=partitions,
        producer=[
            "--rate", str(rate), "--label-delay", label_delay, *(named + steps or STREAM), *seeds,
        ],
    )  # fmt: skip


@app.command(rich_help_panel=PARTS)
def broker(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, show_default="a free one", help="For clients, on 127.0.0.1.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, max=9, help="A cluster of so many, on ports beside each other.")] = 1,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Run an embedded, real Apache Kafka in the foreground. Nothing but Python packages; only this machine reaches it.

    The one line on stdout is its address.
    """
    from selfheal.broker import serve
    from selfheal.where import kafka_folder

    serve(kafka_folder(data_dir), port, nodes=nodes)


@app.command(rich_help_panel=PARTS)
def topics(prefix: Prefix = "", partitions: Partitions = 6, data_dir: DataDir = DATA_DIR) -> None:
    """Create the topics of a pipeline, with their settings; those that exist stay as they are."""
    from selfheal.where import find_kafka
    from shared.kafka import create_topics
    from shared.topics import TOPICS, check_prefix

    created = create_topics(find_kafka(data_dir), check_prefix(prefix), partitions=partitions)
    for name in created:
        typer.echo(name)
    typer.echo(f"{len(created)} created, {len(TOPICS) - len(created)} there already", err=True)
