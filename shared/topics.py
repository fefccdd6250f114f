"""Every topic in one table: its key, its settings, the type on it. Names carry the pipeline's prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from shared import records
from shared.errors import OperatorError

Name = Literal[
    "transactions",
    "labels",
    "predictions",
    "conflicts",
    "heal-requests",
    "adapters",
    "control",
    "events",
    "metrics",
    "dead-letters",
    "state",
]
DAY_MS = 24 * 3600 * 1000
MAX_RECORD_BYTES = 4 * 1024 * 1024  # 1,000 rows of a wide table as JSON, and junk large enough to name
SEGMENT_BYTES = 32 * 1024 * 1024  # of compacted topics; the default of 1 GiB would be read whole at each start


@dataclass(frozen=True)
class Topic:
    """kind: the type of its JSON values, None where values are bytes of another format."""

    name: Name
    key: str
    kind: type[msgspec.Struct] | None
    partitioned: bool = False
    compacted: bool = False
    retention_ms: int = 7 * DAY_MS
    max_bytes: int = MAX_RECORD_BYTES

    def config(self) -> dict[str, str]:
        """Topic settings as the broker spells them."""
        common = {"max.message.bytes": str(self.max_bytes)}
        if self.compacted:
            # The newest segment is never compacted, and whoever starts reads all of it.
            return common | {"cleanup.policy": "compact", "segment.bytes": str(SEGMENT_BYTES)}
        return common | {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


TOPICS: dict[Name, Topic] = {
    t.name: t
    for t in (
        Topic("transactions", "batch id", records.Transactions, partitioned=True),
        Topic("labels", "batch id", records.Labels, partitioned=True),
        Topic("predictions", "batch id", records.Prediction, partitioned=True),
        Topic("conflicts", "batch id", records.Conflicts, partitioned=True),
        Topic("heal-requests", "request id", records.HealRequest),
        Topic("adapters", "version", None, compacted=True),  # safetensors
        Topic("control", "setting", records.Control, compacted=True),
        Topic("events", "run", records.Event, retention_ms=30 * DAY_MS),
        Topic("metrics", "batch id", records.Metrics, compacted=True),
        # The offending bytes, with headers, and maybe compressed less well than when they came.
        Topic("dead-letters", "source", None, retention_ms=30 * DAY_MS, max_bytes=2 * MAX_RECORD_BYTES),
        Topic("state", "part of the monitor's state", None, compacted=True),
    )
}
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def topic_name(name: Name, prefix: str = "") -> str:
    """`P.transactions` for the prefix P, the bare name without one."""
    return f"{prefix}.{name}" if prefix else name


def group_name(service: str, prefix: str = "") -> str:
    """The consumer group of a service of one pipeline."""
    return f"{prefix}.{service}" if prefix else service


def check_prefix(prefix: str) -> str:
    """The prefix itself, if Kafka takes it as part of a topic's name. Raises OperatorError."""
    if prefix and not _PREFIX.fullmatch(prefix):
        raise OperatorError(f"prefix {prefix!r}: use letters, digits, '.', '_' and '-', at most 100")
    return prefix
