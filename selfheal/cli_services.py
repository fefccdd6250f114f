"""`selfheal score`, `heal`, `monitor`: one service as one process, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, SERVICES, BundleDir, DataDir, Prefix, slot_option

app = typer.Typer()


@app.command(rich_help_panel=SERVICES)
def score(
    slot: Annotated[str, slot_option("SCORER_SLOT", "This replica's name in the group of scorers.")] = "0",
    prefix: Prefix = "",
    bundle: BundleDir = None,
    data_dir: DataDir = DATA_DIR,
    turn_max: Annotated[
        int | None,
        typer.Option(
            envvar="SCORER_TURN_MAX", show_default="2000", help="Most batches scored and committed in one transaction."
        ),
    ] = None,
) -> None:
    """Score transactions as they come: the hot path.

    Every batch becomes one prediction or one dead letter, exactly once, whatever is killed. Start more of them, each
    with its own --slot, and the partitions are shared out.
    """
    from selfheal.serve import serve
    from shared.settings import ScorerSettings

    raise typer.Exit(
        serve("scorer", ScorerSettings, data_dir, bundle, slot=slot, prefix=prefix or None, turn_max=turn_max)
    )


@app.command(rich_help_panel=SERVICES)
def heal(
    slot: Annotated[str, slot_option("HEALER_SLOT", "This replica's name in the group of healers.")] = "0",
    prefix: Prefix = "",
    bundle: BundleDir = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Answer heal requests: fetch the rows they name, fit an adapter, publish it.

    The backbone stays frozen. Whether an adapter is served is the monitor's decision.
    """
    from selfheal.serve import serve
    from shared.settings import HealerSettings

    raise typer.Exit(serve("healer", HealerSettings, data_dir, bundle, slot=slot, prefix=prefix or None))


@app.command(rich_help_panel=SERVICES)
def monitor(
    prefix: Prefix = "",
    bundle: BundleDir = None,
    data_dir: DataDir = DATA_DIR,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            envvar="MONITOR_THRESHOLDS", metavar="FILE", show_default="the published ones",
            help="threshold_config.json: f1 and accuracy drop, health window, FIDI threshold, conflict minimum. "
            "For whoever owns the risk: no code to touch.",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            envvar="MONITOR_POLICY", metavar="guarded|reference|observe", show_default="guarded",
            help="`guarded` diagnoses, refuses what it cannot heal, takes back what does not help; `reference` heals "
            "as published; `observe` only measures.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Judge and decide: drift, lift over the frozen shadow, when to heal, what is served, when it is taken back.

    One process decides. A second one takes over, and the first says so and ends (exit code 4).
    """
    from selfheal.serve import serve
    from shared.settings import MonitorSettings

    raise typer.Exit(
        serve("monitor", MonitorSettings, data_dir, bundle, prefix=prefix or None, thresholds=thresholds, policy=policy)
    )
