"""Where the producer publishes: topics by their full names, and whether they exist."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import OperatorError
from shared.kafka import Deadline, list_topics
from shared.topics import topic_name

APPEAR_S = 3.0  # a topic that was just created is not in every broker's metadata yet


@dataclass(frozen=True)
class Target:
    """labels, events None: they are not published."""

    transactions: str
    labels: str | None
    events: str | None

    @classmethod
    def of(cls, prefix: str) -> Target:
        """A pipeline's own."""
        return cls(*(topic_name(n, prefix) for n in ("transactions", "labels", "events")))


def need_topics(kafka: Mapping[str, Any], names: Iterable[str | None]) -> dict[str, int]:
    """Partition count per topic of the cluster. Raises OperatorError: one of these is not there within 3 s."""
    wanted, deadline = {n for n in names if n is not None}, Deadline(APPEAR_S)
    while missing := sorted(wanted - (there := list_topics(kafka)).keys()):
        if deadline.passed():
            raise OperatorError(f"no topic {', '.join(missing)}; `selfheal topics` creates the topics of a pipeline")
        time.sleep(0.05)
    return there
