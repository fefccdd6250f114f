"""`selfheal acl`: the rights of each service, to be granted on a cluster with an authorizer."""

from __future__ import annotations

from typing import Annotated

import typer

from selfheal.cli_options import PARTS, Prefix

app = typer.Typer()


@app.command(rich_help_panel=PARTS)
def acl(
    role: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ROLE", help="producer, lockstep, scorer, healer, monitor, pin, look, setup.", show_default="all"
        ),
    ] = None,
    prefix: Prefix = "",
    principal: Annotated[
        str, typer.Option(metavar="NAME", help="Who logs in, with {role} in it; a certificate is User:CN=..")
    ] = "User:{role}",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line in place of commands.")] = False,
) -> None:
    """Print the least that each service must be allowed on your cluster, for kafka-acls.sh. Changes nothing."""
    import json

    from selfheal.acl import command
    from shared.errors import OperatorError
    from shared.rights import NEEDS, rights
    from shared.topics import check_prefix

    check_prefix(prefix)
    chosen = role or list(NEEDS)
    if unknown := [r for r in chosen if r not in NEEDS]:
        raise OperatorError(f"no role {unknown[0]}: choose from {', '.join(NEEDS)}")
    for known in (name for name in NEEDS if name in chosen):
        who = principal.replace("{role}", known)
        for right in rights(known, prefix):
            typer.echo(json.dumps({"principal": who, **right._asdict()}) if as_json else command(right, who))
