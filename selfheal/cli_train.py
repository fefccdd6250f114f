"""`selfheal train`: a bundle, of synthetic rows or of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfheal.cli_options import DATA_DIR, PARTS, DataDir
from shared.errors import OperatorError

if TYPE_CHECKING:
    from rich.console import Console

    from selfheal.table.training import Trained, Wish

app = typer.Typer()
TABLE, COSTS = "From a table", "What errors cost (with --csv)"


@app.command(rich_help_panel=PARTS)
def train(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="DATA_DIR/bundle", help="The bundle's folder, made if missing."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows and the weights.")] = 42,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=TABLE,
            help="Train on this file, a CSV with a header. Earliest rows train, the last quarter judges.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", rich_help_panel=TABLE, show_default="required",
            help="Holds 1 for fraud, 0 for not (or true/false, yes/no).",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", rich_help_panel=TABLE, show_default="none",
            help="What people know about fraud, one comparison: \"V14 < -1.5\", \"country = 'X'\".",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", rich_help_panel=TABLE, show_default="rows as they stand in the file",
            help="What orders the rows: numbers or ISO 8601.",
        ),
    ] = None,
    categorical: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Its numbers are names; give it again for more.", rich_help_panel=TABLE),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Do not use it; give it again for more.", rich_help_panel=TABLE),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", rich_help_panel=TABLE,
            help="Use it although it looks like an id or goes by the clock; give it again for more.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(metavar="CHAR", show_default="looked for", help="What parts the cells.", rich_help_panel=TABLE),
    ] = None,
    cost_missed: Annotated[
        float | None,
        typer.Option(metavar="C", show_default="5", help="Of a fraud that nobody flags.", rich_help_panel=COSTS),
    ] = None,
    amount: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", show_default="none", help="A missed fraud costs this instead.", rich_help_panel=COSTS
        ),
    ] = None,
    cost_false_alarm: Annotated[
        float | None,
        typer.Option(metavar="C", show_default="1", help="Of a flag on an honest one.", rich_help_panel=COSTS),
    ] = None,
    alerts_per_1000: Annotated[
        float | None,
        typer.Option(
            metavar="K", show_default="no bound", rich_help_panel=COSTS,
            help="Flag at most so many of 1,000 transactions, however risky the next one is.",
        ),
    ] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:  # fmt: skip
    """Train a model and write it as a bundle: weights, rule, thresholds, costs, statistics, a hash.

    Without --csv on clean synthetic rows; with it on your own table, of numbers and categories, with gaps. It says
    which columns it cannot use and why. `selfheal produce --csv FILE --bundle DIR` streams such a table.
    """
    from selfheal.process import one_thread

    folder = out or data_dir / "bundle"
    more = {
        "--label": label, "--rule": rule, "--time": time, "--categorical": categorical, "--ignore": ignore,
        "--keep": keep, "--delimiter": delimiter, "--cost-missed": cost_missed, "--amount": amount,
        "--cost-false-alarm": cost_false_alarm, "--alerts-per-1000": alerts_per_1000,
    }  # fmt: skip
    if csv is None and (given := [name for name, value in more.items() if value]):
        raise OperatorError(f"{', '.join(given)}: these go with --csv FILE; without it the rows are synthetic")
    if csv is not None and label is None:
        raise OperatorError(f"--label is missing: which column of {csv} says whether a row was fraud?")
    one_thread()
    from rich.console import Console

    console = Console(highlight=False)
    if csv is None or label is None:
        _synthetic(console, folder, seed)
        return
    from selfheal.table.training import Wish

    wish = Wish(
        file=csv, label=label, rule=rule, time=time, amount=amount, cost_missed=cost_missed,
        cost_false_alarm=cost_false_alarm, alerts_per_1000=alerts_per_1000, delimiter=delimiter,
        categorical=categorical or (), ignored=ignore or (), keep=keep or (), seed=seed,
    )  # fmt: skip
    _table(console, folder, wish)


def _synthetic(console: Console, folder: Path, seed: int) -> None:
    with console.status("training: 5,000 rows, 20 epochs"):
        from selfheal import training

        made = training.train(folder, seed=seed)
    clean = made.manifest.clean
    console.print(
        f"bundle {made.hash[:16]} in {folder}: on held-out clean rows accuracy {clean.accuracy:.3f}, "
        f"precision {clean.precision:.3f}, recall {clean.recall:.3f}, F1 {clean.f1:.3f}",
        soft_wrap=True,
    )


def _table(console: Console, folder: Path, wish: Wish) -> None:
    from selfheal.table.telling import lines

    with console.status("loading PyTorch") as status:
        from selfheal.table.training import train_table

        made: Trained = train_table(folder, wish, status.update)
    for line in lines(made, folder):
        console.print(line, soft_wrap=True, markup=False)
