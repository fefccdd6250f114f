"""`selfheal tail`, `status`, `pin`, `unpin`, `health`, `settings`: looking, and a person's orders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, LOOKING, DataDir, Json, Prefix

app = typer.Typer()
ORDERS = "A person's orders"


@app.command(rich_help_panel=LOOKING)
def tail(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC",
            help="events, predictions, conflicts, metrics, labels, transactions, control, adapters, heal-requests, "
            "dead-letters or state.",
        ),
    ],
    prefix: Prefix = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="WHEN", help="10m ago (s, m, h, d), a time (2026-03-01T12:00:00Z), `beginning`, or `now`."
        ),
    ] = "now",
    until_idle: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", show_default="follow on", help="End after S seconds without a record."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="K", help="Only this kind: of events (drift-detected, ..), labels or control."),
    ] = None,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="Only this batch.")] = None,
    grep: Annotated[str | None, typer.Option(metavar="TEXT", help="Only records that hold the text.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N records.")] = None,
    json: Json = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Follow a topic: readable lines in a terminal, JSON lines in a pipe.

    `selfheal tail events --since beginning` tells what happened so far, and goes on.
    """
    from rich.console import Console

    from selfheal.since import since_ms
    from selfheal.tail import Filter
    from selfheal.tail import tail as follow
    from selfheal.where import find_kafka
    from shared.errors import OperatorError
    from shared.telemetry import epoch_ms
    from shared.topics import TOPICS, check_prefix

    if topic not in TOPICS:
        raise OperatorError(f"no topic {topic!r}: choose from {', '.join(TOPICS)}")
    check_prefix(prefix)
    start = None if since == "now" else since_ms(since, epoch_ms())
    console = Console(highlight=False)
    follow(
        find_kafka(data_dir), topic, prefix, console,
        json=not console.is_terminal if json is None else json,
        since_ms=start, until_idle_s=until_idle, limit=limit, only=Filter(kind, batch, grep),
    )  # fmt: skip


@app.command(rich_help_panel=LOOKING)
def status(prefix: Prefix = "", json: Json = None, data_dir: DataDir = DATA_DIR) -> None:
    """What is running, which adapter is served, how the stream stands, who lags.

    Exit code 2 when no broker answers or the pipeline has no topics.
    """
    from rich.console import Console

    from selfheal import status as look
    from selfheal.where import find_kafka
    from shared.topics import check_prefix

    found = look.look(find_kafka(data_dir), check_prefix(prefix))
    console = Console(highlight=False)
    if (not console.is_terminal) if json is None else json:
        sys.stdout.buffer.write(look.as_json(found) + b"\n")
        sys.stdout.flush()
    else:
        console.print(look.view(found))


@app.command(rich_help_panel=ORDERS)
def pin(
    version: Annotated[str, typer.Argument(help="v1 (the bundle's own: no adapter), v2, ..")],
    prefix: Prefix = "",
    reason: Annotated[str, typer.Option(help="Why; it is kept on the control topic.")] = "by hand",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Serve this adapter whatever the monitor says, until `selfheal unpin`."""
    from selfheal.control import pin as order
    from selfheal.where import find_kafka
    from shared.topics import check_prefix

    by = order(find_kafka(data_dir), check_prefix(prefix), version, reason)
    typer.echo(f"pinned {version} (by {by}): scorers swap before their next turn")


@app.command(rich_help_panel=ORDERS)
def unpin(
    prefix: Prefix = "",
    reason: Annotated[str, typer.Option(help="Why; it is kept on the control topic.")] = "by hand",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Leave it to the monitor again which adapter is served."""
    from selfheal.control import pin as order
    from selfheal.where import find_kafka
    from shared.topics import check_prefix

    by = order(find_kafka(data_dir), check_prefix(prefix), None, reason)
    typer.echo(f"unpinned (by {by}): what the monitor made active is served again")


@app.command(rich_help_panel=LOOKING)
def health(
    file: Annotated[
        Path | None,
        typer.Option(
            envvar="SELFHEAL_HEALTH_FILE", metavar="FILE", help="The file that the service touches once a second."
        ),
    ] = None,
    max_age: Annotated[
        float, typer.Option(envvar="SELFHEAL_HEALTH_MAX_AGE_S", metavar="S", help="Older than this: not healthy.")
    ] = 30.0,
) -> None:
    """For container health checks: exit code 0 while the service turns, 1 when it does not."""
    from shared.errors import OperatorError
    from shared.telemetry import heartbeat_age_s

    if file is None:
        raise OperatorError("SELFHEAL_HEALTH_FILE is not set: name the file there, for the service and for us")
    age = heartbeat_age_s(file)
    if age is None or age > max_age:
        typer.echo(f"not healthy: {file} " + ("was never written" if age is None else f"is {age:.0f} s old"))
        raise typer.Exit(1)
    typer.echo(f"healthy: turned {age:.1f} s ago")


@app.command(rich_help_panel=LOOKING)
def settings() -> None:
    """Every setting with its default, as the table in README.md."""
    from selfheal.settings_table import markdown

    sys.stdout.write(markdown())
    sys.stdout.flush()
