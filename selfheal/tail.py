"""Follows a topic: lines for a person, JSON lines for a program."""

from __future__ import annotations

import base64
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson
from rich.console import Console

from selfheal.tail_lines import body_of, line
from shared.kafka import Follower, Taken
from shared.topics import Name, topic_name

WAIT_S = 0.25


class Filter(NamedTuple):
    """What to show; None: everything. kind: of events and labels. batch: a batch id. grep: text, in any case."""

    kind: str | None = None
    batch: str | None = None
    grep: str | None = None

    def takes(self, name: Name, record: Taken) -> bool:
        """Whether the record is to be shown."""
        if self.kind is None and self.batch is None and self.grep is None:
            return True
        body = body_of(record) or {}
        if self.kind is not None and body.get("kind", body.get("setting")) != self.kind:
            return False
        if self.batch is not None and self.batch not in (body.get("batch_id"), _key(record)):
            return False
        return self.grep is None or self.grep.lower() in as_json(name, record).decode("utf-8", "replace").lower()


ALL = Filter()


def as_json(name: Name, record: Taken) -> bytes:
    """One JSON object: the fields of the value, and beside them _topic, _partition, _offset, _timestamp (ms), _key,
    _headers. Adapters and dead letters are bytes: their headers stand as fields; a dead letter's value as _value, or
    _value_base64 where it is no text; of an adapter the _bytes are counted. No value at all is _value null."""
    headers = {k: v.decode("utf-8", "replace") for k, v in record.headers.items()}
    where: dict[str, Any] = {
        "_topic": record.topic, "_partition": record.partition, "_offset": record.offset,
        "_timestamp": record.timestamp_ms, "_key": _key(record),
    }  # fmt: skip
    if name in ("adapters", "dead-letters"):
        content = {"_bytes": len(record.value or b"")} if name == "adapters" else _bytes_as_json(record.value)
        return orjson.dumps({**headers, **content, **where})
    body = body_of(record)
    content = _bytes_as_json(record.value) if body is None else body
    return orjson.dumps({**content, **where, **({"_headers": headers} if headers else {})})


def _key(record: Taken) -> str | None:
    return None if record.key is None else record.key.decode("utf-8", "replace")


def _bytes_as_json(value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"_value": None}
    try:
        return {"_value": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"_value_base64": base64.b64encode(value).decode("ascii")}


def records(
    kafka: Mapping[str, Any], name: Name, prefix: str, *, since_ms: int | None, until_idle_s: float | None,
    gone: Callable[[], bool],
) -> Iterator[list[Taken]]:  # fmt: skip
    """What is on the topic from a time on (None: from now), as it comes, an empty list when nothing did. Ends after
    until_idle_s without a record, or when nobody reads any more."""
    topic = topic_name(name, prefix)
    follower = Follower(kafka, [topic], name="tail", since_ms=since_ms, from_end=since_ms is None)
    quiet_since = time.monotonic()
    try:
        while not gone():
            # Partitions come one after the other: within what is there, in the order of time.
            taken = sorted(follower.take(WAIT_S), key=lambda r: (r.timestamp_ms, r.partition, r.offset))
            if taken:
                quiet_since = time.monotonic()
            elif until_idle_s is not None and follower.caught_up and time.monotonic() - quiet_since >= until_idle_s:
                return
            yield taken
    finally:
        follower.close()


def tail(
    kafka: Mapping[str, Any], name: Name, prefix: str, console: Console, *, json: bool, since_ms: int | None = None,
    until_idle_s: float | None = None, limit: int | None = None, only: Filter = ALL,
) -> int:  # fmt: skip
    """Print until the end that the arguments name, or the reader goes away; how many were printed."""
    shown = 0
    try:
        for batch in records(kafka, name, prefix, since_ms=since_ms, until_idle_s=until_idle_s, gone=_reader_gone):
            for record in batch:
                if not only.takes(name, record):
                    continue
                if json:
                    sys.stdout.buffer.write(as_json(name, record) + b"\n")
                else:
                    console.print(line(name, record), soft_wrap=True)
                shown += 1
                if shown == limit:
                    sys.stdout.flush()
                    return shown
            sys.stdout.flush()
    except BrokenPipeError:
        # `tail .. | head -1`: the reader has what it wanted. Nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return shown


def _reader_gone() -> bool:
    """Whether the other end of stdout is closed: else `tail .. | head -1` would stay until the next record."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in watch.poll(0))
