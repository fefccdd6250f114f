"""`selfheal audit`: what the topics prove."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, LOOKING, BundleDir, DataDir, Json, Prefix

app = typer.Typer()
BROKEN = 1


@app.command(rich_help_panel=LOOKING)
def audit(
    prefix: Prefix = "",
    bundle: BundleDir = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="all", help="Compute N rows of each batch again, not all."),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="What is not yet scored, judged or answered breaks a rule, too.")
    ] = False,
    lag: Annotated[
        float,
        typer.Option(min=0, metavar="S", help="Longest that a scorer may serve by an older control record."),
    ] = 60.0,
    skew: Annotated[
        float, typer.Option(min=0, metavar="S", help="How far the clocks of the services' machines may differ.")
    ] = 1.0,
    json: Json = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Check from the topics alone that nothing was lost, doubled or made up: every answer, probability, row, decision.

    A line for each rule. Exit code 0: all hold; 1: one is broken; 2: it cannot be audited.
    """
    import orjson
    from rich.console import Console

    from audit import CannotAudit, run
    from selfheal.where import find_bundle, find_kafka
    from shared.errors import OperatorError
    from shared.topics import check_prefix

    kafka, folder, told = find_kafka(data_dir), find_bundle(bundle, data_dir), Console(stderr=True)
    records = 0
    try:
        with told.status("reading") as line:

            def on_read(more: int) -> None:
                nonlocal records
                records += more
                line.update(f"{records:,} records read")

            report = run(
                kafka, check_prefix(prefix), folder, sample=sample, complete=complete, lag_s=lag, skew_s=skew,
                on_read=on_read if told.is_terminal else lambda _: None,
            )  # fmt: skip
    except CannotAudit as exc:
        raise OperatorError(str(exc)) from exc
    if (not sys.stdout.isatty()) if json is None else json:
        sys.stdout.buffer.write(orjson.dumps(report.as_dict()) + b"\n")
    else:
        sys.stdout.write("\n".join(report.lines()) + "\n")
    sys.stdout.flush()
    if not report.ok:
        raise typer.Exit(BROKEN)
