"""The rights of shared/rights.py as lines for Apache Kafka's own tool, and as the table in docs/security.md."""

from __future__ import annotations

from shared.rights import NEEDS, Right
from shared.topics import Name


def command(right: Right, principal: str) -> str:
    """The line that grants it with Apache Kafka's own tool. principal: as the authorizer names who logs in."""
    pattern = " --resource-pattern-type prefixed" if right.prefixed else ""
    return (
        f"kafka-acls.sh --bootstrap-server $KAFKA_BOOTSTRAP_SERVERS --add --allow-principal '{principal}' "
        f"--operation {right.operation} --{right.resource} '{right.name}'{pattern}"
    )


def markdown() -> str:
    """The table as docs/security.md holds it, for the prefix P."""
    lines = ["| role | reads | writes | group | transactional.id |", "|---|---|---|---|---|"]
    for role, needs in NEEDS.items():
        title = f"{role} ({needs.what})" if needs.what else role
        reads = "every topic" if role == "look" else _names(needs.reads)
        writes = "Create, Describe: every topic" if role == "setup" else _names(needs.writes)
        group = f"`P.{role}`" if needs.service else "Describe: all three" if role == "look" else ""
        own = f"`P.{role}-{role}*`" if needs.service else ""
        lines.append(f"| {title} | {reads} | {writes} | {group} | {own} |")
    return "\n".join(lines) + "\n"


def _names(names: tuple[Name, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
