"""`selfheal chaos`: break a pipeline on purpose, then have it audited."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import RUNNING, Json

app = typer.Typer()


@app.command(rich_help_panel=RUNNING)
def chaos(
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same schedule.")] = 1,
    minutes: Annotated[float, typer.Option(metavar="M", help="Of faults; quiet and audit come on top.")] = 3.0,
    brokers: Annotated[int, typer.Option(min=1, max=3, help="3: a cluster, whose brokers are killed too.")] = 1,
    scorers: Annotated[int, typer.Option(min=2, max=8, metavar="N", help="Scorer replicas.")] = 2,
    rate: Annotated[float, typer.Option(min=1, max=200, metavar="R", help="Messages/s of the load.")] = 12.0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the record (chaos.json) and the logs here.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the schedule and end.")] = False,
    json: Json = None,
) -> None:
    """Kill, stop and fence everything, by a schedule drawn from a seed, and audit what is left.

    Runs a pipeline of its own, on brokers of its own in a temporary folder, under a load with bad messages in it; each
    service is killed at every named crash point. Exit code 0 only if every point was reached, nothing was lost or
    doubled, and every rule of the auditor holds. Ctrl-C leaves nothing running.
    """
    import sys

    from rich.console import Console

    from selfheal.chaos import plan as plans
    from selfheal.process import end_on_sigterm

    end_on_sigterm()
    console = Console(highlight=False, stderr=json is True or (json is None and not sys.stdout.isatty()))
    if brokers == 2:
        raise typer.BadParameter("1 or 3: two brokers lose their quorum with either", param_hint="--brokers")
    acts = plans.schedule(seed, minutes, brokers=brokers, scorers=scorers)
    for act in acts:
        console.print(f"{act.at_s:7.1f} s  {act}", style="dim", soft_wrap=True, markup=False)
    if plan:
        return
    import msgspec

    from selfheal.chaos import nemesis, report
    from shared.telemetry import set_up_logging

    set_up_logging("CRITICAL")  # clients of ours say a lot while the broker that we killed is away
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfheal-chaos-")))
        if out is not None:
            stack.callback(shutil.copytree, folder / "logs", out / "logs", dirs_exist_ok=True)
        outcome = nemesis.run(
            acts, seed=seed, brokers=brokers, scorers=scorers, rate=rate, folder=folder,
            say=lambda text: console.print(text, soft_wrap=True, markup=False),
        )  # fmt: skip
        if out is not None:
            report.write(outcome, out)
    for line in report.lines(outcome):
        console.print(line, soft_wrap=True, markup=False)
    if console.stderr:
        sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
    raise typer.Exit(0 if outcome.green else 1)
