"""Options that several commands share, each with the help text that teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SERVICES, LOOKING, RUNNING = "Services, one process each", "Looking", "Everything at once"
PARTS = "Parts"

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="SELFHEAL_DATA_DIR", metavar="DIR",
        help="What this machine keeps: the embedded broker's data (kafka/), the trained bundle (bundle/), logs/.",
    ),
]  # fmt: skip
Prefix = Annotated[
    str,
    typer.Option(
        "--prefix", envvar="SELFHEAL_PREFIX", metavar="P",
        help="Every topic is P.NAME, so that several pipelines share a cluster; without it the bare name.",
    ),
]  # fmt: skip
BundleDir = Annotated[
    Path | None,
    typer.Option(
        "--bundle", envvar="SELFHEAL_BUNDLE", metavar="DIR", show_default="./bundle, else DATA_DIR/bundle",
        help="The model that is served: a folder made by `selfheal train`.",
    ),
]  # fmt: skip
Json = Annotated[
    bool | None,
    typer.Option("--json/--text", show_default="JSON in a pipe, text in a terminal", help="How to print."),
]
Policy = Annotated[
    str,
    typer.Option(
        envvar="MONITOR_POLICY", metavar="guarded|reference|observe",
        help="Diagnose, heal what can be healed and refuse the rest; heal as published; or only measure.",
    ),
]  # fmt: skip
DATA_DIR = Path(".selfheal")
OWN_HOST = "host"  # as a slot: the host's name


def slot_option(env: str, what: str) -> object:
    """--slot of one service."""
    return typer.Option(
        "--slot", envvar=env, metavar="NAME",
        help=f"{what} Exactly-once rests on it: the same after a restart, unique among the living. "
        "`host` takes the host's name, for containers.",
    )  # fmt: skip
