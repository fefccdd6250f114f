"""`selfheal chaos`: break a pipeline on purpose, then have it audited."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfheal.cli_options import RUNNING, Json

if TYPE_CHECKING:
    from rich.console import Console

    from selfheal.chaos.report import Outcome

app = typer.Typer()


@app.command(rich_help_panel=RUNNING)
def chaos(
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same schedule.")] = 1,
    seeds: Annotated[
        str | None, typer.Option(metavar="1,2,..", help="Several runs, one after the other, and their sum.")
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="Of faults; quiet and audit come on top.")] = 3.0,
    policy: Annotated[
        Literal["guarded", "reference"], typer.Option(help="Of the monitor; the load drifts as that policy can heal.")
    ] = "guarded",
    brokers: Annotated[int, typer.Option(min=1, max=3, help="3: a cluster, whose brokers are killed too.")] = 1,
    scorers: Annotated[int, typer.Option(min=2, max=8, metavar="N", help="Scorer replicas.")] = 2,
    rate: Annotated[float, typer.Option(min=1, max=200, metavar="R", help="Messages/s of the load.")] = 12.0,
    disk_full: Annotated[
        bool, typer.Option("--disk-full/--no-disk-full", help="Let the brokers' disk fill up once (root on Linux).")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the record (chaos.json) and the logs here; of several, by seed."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the schedule and end.")] = False,
    json: Json = None,
) -> None:
    """Kill, stop and fence everything, by a schedule drawn from a seed, and audit what is left.

    Runs a pipeline of its own, on brokers of its own in a temporary folder, under a load with bad messages and drifts
    in it; each service is killed at every named crash point. Exit code 0 only if every point was reached, nothing was
    lost or doubled, and every rule of the auditor holds. Ctrl-C leaves nothing running.
    """
    from rich.console import Console

    from selfheal.process import end_on_signals

    end_on_signals()
    as_json = (not sys.stdout.isatty()) if json is None else json
    console = Console(highlight=False, stderr=as_json)
    if brokers == 2:
        raise typer.BadParameter("1 or 3: two brokers lose their quorum with either", param_hint="--brokers")
    if seeds is None:
        outcome = _one(console, seed, minutes, policy, brokers, scorers, rate, disk_full, out, plan)
        if outcome is None:
            return
        if as_json:
            import msgspec

            sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
        raise typer.Exit(0 if outcome.green else 1)
    if plan:
        raise typer.BadParameter("the schedule of one seed: --seed", param_hint="--plan")
    options = [
        "--minutes", str(minutes), "--policy", policy, "--brokers", str(brokers), "--scorers", str(scorers),
        "--rate", str(rate), "--disk-full" if disk_full else "--no-disk-full",
    ]  # fmt: skip
    raise typer.Exit(_several(console, seeds, options, out, as_json=as_json))


def _one(
    console: Console, seed: int, minutes: float, policy: Literal["guarded", "reference"], brokers: int, scorers: int,
    rate: float, disk_full: bool, out: Path | None, plan: bool,
) -> Outcome | None:  # fmt: skip
    from selfheal.chaos import disk, nemesis, report
    from selfheal.chaos import plan as plans
    from shared.telemetry import set_up_logging

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True, markup=False)

    acts, left_out = plans.schedule(seed, minutes, brokers=brokers, scorers=scorers), []
    if why := disk.unshared() if disk_full else "--no-disk-full":
        acts, left_out = [a for a in acts if a.kind != "disk-full"], [f"disk-full: {why}"]
    for act in acts:
        say(f"{act.at_s:7.1f} s  {act}", "dim")
    for text in left_out:
        say(f"left out   {text}")
    if plan:
        return None
    set_up_logging("CRITICAL")  # clients of ours say a lot while the broker that we killed is away
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfheal-chaos-")))
        if out is not None:
            stack.callback(shutil.copytree, folder / "logs", out / "logs", dirs_exist_ok=True)
        outcome = nemesis.run(
            acts, seed=seed, brokers=brokers, scorers=scorers, rate=rate, policy=policy, left_out=left_out,
            folder=folder, say=say,
        )  # fmt: skip
        if out is not None:
            report.write(outcome, out)
    for line in report.lines(outcome):
        say(line)
    return outcome


def _several(console: Console, seeds: str, options: list[str], out: Path | None, *, as_json: bool) -> int:
    import msgspec

    from selfheal.chaos import seeds as several

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    outcomes = several.run(several.parse(seeds), options, out, say)
    total = several.total(outcomes)
    for line in several.lines(total):
        say(line)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "total.json").write_bytes(msgspec.json.format(msgspec.json.encode(total), indent=1))
    if as_json:
        sys.stdout.write(msgspec.json.encode({"total": total, "runs": outcomes}).decode() + "\n")
    return 0 if total.green == total.runs else 1
