"""Records as plain data, on their way in and out: a client's Message would hold its whole fetch buffer alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Headers = dict[str, bytes]


class Taken(NamedTuple):
    """A record that was read. timestamp_ms: Unix epoch, as the topic keeps it (its producer's clock by default)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Out(NamedTuple):
    """A record to publish. partition None: by the key's hash (murmur2, as Java clients do)."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Mapping[str, str | bytes] = {}
    partition: int | None = None


def plain(message: Any) -> Taken:
    """A Message without an error, copied. (Any: the client's stub calls each part optional; here none is.)"""
    headers = {k: (v if isinstance(v, bytes) else b"") for k, v in (message.headers() or ())}
    return Taken(
        message.topic(), message.partition(), message.offset(), message.timestamp()[1],
        message.key(), message.value(), headers,
    )  # fmt: skip
