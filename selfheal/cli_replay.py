"""`selfheal replay`: what was recorded, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, RUNNING, BundleDir, DataDir, Policy

app = typer.Typer()
WHAT, HOW, WHERE = "What", "How", "Where to"
DIFFERS = 1


@app.command(rich_help_panel=RUNNING)
def replay(
    from_prefix: Annotated[
        str, typer.Option(metavar="P", help="The pipeline that was recorded.", rich_help_panel=WHAT)
    ] = "",
    from_topic: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="Anew: any topic of transactions, of any program.", rich_help_panel=WHAT
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="From then on: 10m ago, a time, `beginning`.", rich_help_panel=WHAT),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Before then.", rich_help_panel=WHAT)] = None,
    from_offset: Annotated[
        str | None,
        typer.Option(metavar="N", help="From this offset on: 120, or by partition 0:120,1:95.", rich_help_panel=WHAT),
    ] = None,
    to_offset: Annotated[
        str | None, typer.Option(metavar="N", help="Before this offset, written alike.", rich_help_panel=WHAT)
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Anew: at most N batches.", rich_help_panel=WHAT)
    ] = None,
    anew: Annotated[
        bool,
        typer.Option(
            "--anew", rich_help_panel=HOW,
            help="The pipeline decides for itself. Without it, and without a drift, each batch is scored by the "
            "adapter that scored it then, and the probabilities are compared bit for bit.",
        ),
    ] = False,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP", rich_help_panel=HOW,
            help="Anew, with a drift injected: shift:V14:-2.2,.. as in `selfheal produce`.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="R", show_default="as fast as it goes", help="Batches per second.", rich_help_panel=HOW
        ),
    ] = None,
    lockstep: Annotated[
        bool,
        typer.Option("--lockstep", help="Anew: a batch when the last one is settled.", rich_help_panel=HOW),
    ] = False,
    to_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="P", show_default="replay-<time>", help="Of the fresh pipeline.", rich_help_panel=WHERE
        ),
    ] = None,
    to_topic: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="Anew: onto this topic, and nothing else is started.", rich_help_panel=WHERE
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="the ids stay", help="Anew: NAME-000001 and so on as batch ids.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    services: Annotated[
        bool,
        typer.Option(
            "--services/--no-services", rich_help_panel=WHERE,
            help="Run the fresh pipeline's services here while it lasts, or rely on those that run under its prefix.",
        ),
    ] = True,
    scorers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Scorers.", rich_help_panel=WHERE)] = 1,
    policy: Policy = "guarded",
    bundle: BundleDir = None,
    data_dir: DataDir = DATA_DIR,
) -> None:  # fmt: skip
    """Send a recorded stream through a fresh pipeline: as it was scored, or anew with a drift or without.

    As recorded it ends with the comparison: exit code 0 when every probability is the same bits, 1 when not.
    """
    from rich.console import Console

    from producer.span import Span, parse_offsets
    from producer.target import Target
    from selfheal import replaying
    from selfheal.process import end_on_signals, one_thread
    from selfheal.since import since_ms
    from selfheal.where import find_bundle, find_kafka
    from shared.errors import OperatorError
    from shared.settings import ProducerSettings, load
    from shared.telemetry import epoch_ms, set_up_logging
    from shared.topics import check_prefix, topic_name

    one_thread()
    end_on_signals()
    set_up_logging("WARNING")
    now = epoch_ms()
    span = Span(
        from_offset=None if from_offset is None else parse_offsets(from_offset, "--from-offset"),
        to_offset=None if to_offset is None else parse_offsets(to_offset, "--to-offset"),
        since_ms=None if since is None else since_ms(since, now),
        until_ms=None if until is None else since_ms(until, now, "--until"),
    )
    check_prefix(from_prefix)
    kafka, folder = find_kafka(data_dir), find_bundle(bundle, data_dir)
    settings = load(ProducerSettings, prefix=check_prefix(to_prefix or f"replay-{now}"), bundle=folder)
    console = Console(highlight=False)
    as_it_was = not (anew or drift or from_topic or to_topic or lockstep or run or batches)
    plan = replaying.Plan(span, folder, Path("runs") / settings.prefix, rate or None, services, scorers, policy)
    if not as_it_was:
        topic = from_topic or topic_name("transactions", from_prefix)
        if to_topic == topic and run is None:
            raise OperatorError(f"--to-topic {topic} is where it comes from: give a --run name for the new batch ids")
        labels = None if from_topic else topic_name("labels", from_prefix)
        done = replaying.afresh(
            console, kafka, settings, plan, origin=Target(topic, labels, None), drift=drift or (), lockstep=lockstep,
            batches=batches, run_name=run, to=None if to_topic is None else Target(to_topic, None, None),
        )  # fmt: skip
        console.print(f"replayed anew: {done.batches} batches, {done.rows} transactions", soft_wrap=True)
        return
    found = replaying.recorded(console, kafka, settings, plan, origin=from_prefix)
    console.print(
        f"compared {found.batches} batches, {found.rows} probabilities: "
        + ("all the same bits" if found.same else f"{found.differing} batches differ: {', '.join(found.named[:5])}"),
        soft_wrap=True,
    )
    if not found.same:
        raise typer.Exit(DIFFERS)
