"""The front door: `selfheal COMMAND`. Every command is in a cli_*.py and loads what it needs when it is called,
so that `selfheal --help` is quick.

Exit codes: 0 done; 2 a person must change something; 3 this process must exit, a fresh one carries on; 4 another
process runs under our name; 130 Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from selfheal import cli_acl, cli_audit, cli_chaos, cli_feed, cli_look, cli_replay, cli_run, cli_services, cli_train
from selfheal.cli_experiment import app as experiment
from shared.errors import Fatal, Fenced, OperatorError, SelfhealError

EXIT_CODES: tuple[tuple[type[SelfhealError], int], ...] = ((OperatorError, 2), (Fenced, 4), (Fatal, 3))
OTHER = 1
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

app = typer.Typer(
    name="selfheal",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_CONTEXT,
    help="Self-healing fraud scoring on Kafka: a model drifts, the system notices, publishes a small adapter around "
    "the frozen network, proves that it helps, and takes it back when it does not.\n\n"
    "New here: `selfheal demo`. It needs nothing but this program.",
)
for part in (cli_run, cli_train, cli_chaos, cli_replay, cli_services, cli_feed, cli_look, cli_acl, cli_audit):
    app.registered_commands += part.app.registered_commands
app.add_typer(experiment, name="experiment", rich_help_panel="Everything at once")


def main() -> None:
    """Entry point: one readable line for an error that a person can do something about, and its exit code."""
    try:
        app()
    except SelfhealError as exc:
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(exc)), soft_wrap=True)
        sys.exit(exit_code(exc))


def exit_code(exc: SelfhealError) -> int:
    """By what the caller must do next."""
    return next((code for kind, code in EXIT_CODES if isinstance(exc, kind)), OTHER)
