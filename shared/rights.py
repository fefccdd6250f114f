"""What each service may do on a cluster with an authorizer: nothing beyond what it needs. One table: docs/security.md
shows it, `selfheal acl` prints it, services look at it before they begin, and tests/test_acl.py holds a real authorizer
to it.

Describe comes with Read and Write of the same thing, and so does the idempotent producer's own right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from shared.topics import TOPICS, Name, group_name, topic_name

Operation = Literal["Read", "Write", "Create", "Describe"]
Resource = Literal["topic", "group", "transactional-id"]
Role = Literal["producer", "lockstep", "scorer", "healer", "monitor", "pin", "look", "setup"]


class Needs(NamedTuple):
    """Topics read and written; whether it is a consumer group with transactions of its own."""

    what: str
    reads: tuple[Name, ...]
    writes: tuple[Name, ...]
    service: bool = False


NEEDS: Mapping[Role, Needs] = {
    "producer": Needs("feeds the stream", (), ("transactions", "labels", "events")),
    "lockstep": Needs(
        "a producer in lockstep, also", ("metrics", "dead-letters", "predictions"), ()
    ),
    "scorer": Needs(
        "", ("transactions", "adapters", "control"), ("predictions", "conflicts", "dead-letters", "events"), True
    ),
    "healer": Needs(
        "", ("heal-requests", "transactions", "labels", "adapters"), ("adapters", "events", "dead-letters"), True
    ),
    "monitor": Needs(
        "", ("predictions", "labels", "events", "state", "transactions"),
        ("metrics", "events", "heal-requests", "control", "state", "dead-letters"), True,
    ),
    "pin": Needs("a person who pins and unpins", ("adapters",), ("control",)),
    "look": Needs("status, tail, export, audit", tuple(TOPICS), ()),
    "setup": Needs("`selfheal topics`", (), ()),
}  # fmt: skip


class Right(NamedTuple):
    """One allowed operation. prefixed: name is how the resource's name begins, not all of it."""

    role: Role
    operation: Operation
    resource: Resource
    name: str
    prefixed: bool = False


def rights(role: Role, prefix: str = "") -> list[Right]:
    """Exactly what a role needs on the pipeline of a prefix."""
    return list(_rights(role, prefix))


def _rights(role: Role, prefix: str) -> Iterator[Right]:
    needs = NEEDS[role]
    uses: dict[Operation, tuple[Name, ...]] = {"Read": needs.reads, "Write": needs.writes}
    for operation, names in uses.items():
        for name in names:
            yield Right(role, operation, "topic", topic_name(name, prefix))
    if role == "setup":
        for name in TOPICS:
            yield Right(role, "Create", "topic", topic_name(name, prefix))
            yield Right(role, "Describe", "topic", topic_name(name, prefix))
    if role == "look":
        for service in ("scorer", "healer", "monitor"):
            yield Right(role, "Describe", "group", group_name(service, prefix))
    if needs.service:
        group = group_name(role, prefix)
        yield Right(role, "Read", "group", group)
        # The slots' names stand behind it.
        yield Right(role, "Write", "transactional-id", f"{group}-{role}", prefixed=True)
