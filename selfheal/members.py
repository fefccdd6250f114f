"""Who is in a consumer group, asked by a process of its own: `python -m selfheal.members`, the question on its stdin.

librdkafka's admin client can end its process with an assertion (its issue 4605) when a broker goes away under a
question about groups. That must not end the one that a person looks with, so another asks, and may fail.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.errors import Fatal, OperatorError, TimedOut
from shared.kafka import Member, group_members
from shared.telemetry import set_up_logging

COMMAND = (sys.executable, "-P", "-m", "selfheal.members")
BUDGET_S, START_S = 15.0, 15.0  # of one group; of a Python process on a machine that has other work


class Question(msgspec.Struct, frozen=True):
    """kafka: librdkafka settings. On stdin, since `ps` shows arguments to everybody."""

    kafka: dict[str, Any]
    groups: list[str]
    budget_s: float


class Found(msgspec.Struct, frozen=True):
    """members: by group. fault: what a person must change, instead."""

    members: dict[str, list[Member]] = {}
    fault: str = ""


def members_of(
    kafka: Mapping[str, Any], groups: Sequence[str], budget_s: float = BUDGET_S
) -> dict[str, list[Member]] | None:
    """Who is in each group now; None where nobody could say, as when a broker dies meanwhile. Blocks for budget_s a
    group and START_S at most. Raises OperatorError: no broker answers, or we may not ask."""
    question = msgspec.json.encode(Question(dict(kafka), list(groups), budget_s))
    try:
        done = subprocess.run(
            COMMAND, input=question, capture_output=True, timeout=budget_s * len(groups) + START_S, check=False
        )  # fmt: skip
        found = msgspec.json.decode(done.stdout, type=Found)
    except (subprocess.TimeoutExpired, msgspec.DecodeError):  # aborted: it has said nothing, or half of it
        return None
    if found.fault:
        raise OperatorError(found.fault)
    return found.members if done.returncode == 0 else None


def held(partitions: list[tuple[str, int]], prefix: str) -> str:
    """`transactions 0 2 4`, the prefix left out."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic.removeprefix(f"{prefix}.") if prefix else topic, []).append(partition)
    return ", ".join(f"{topic} {' '.join(map(str, numbers))}" for topic, numbers in by_topic.items())


def main() -> int:
    """Entry point of the process."""
    set_up_logging("CRITICAL")
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        found = Found({group: group_members(asked.kafka, group, asked.budget_s) for group in asked.groups})
    except OperatorError as exc:
        found = Found(fault=str(exc))
    except (Fatal, TimedOut):
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
