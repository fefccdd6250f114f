"""Which records of a topic a replay reads: by offsets or by time, and in what order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import OperatorError
from shared.kafka import Deadline, Fetcher, Taken, offsets_at, watermarks
from shared.records import OffsetRange

CHUNK = 200  # offsets fetched at a time and partition: bounds memory to partitions * 200 records
Offsets = int | Mapping[int, int]


@dataclass(frozen=True)
class Span:
    """Offsets: one number for every partition, or partition to offset, and then only the partitions named there.
    Times: Unix epoch ms, of the records' Kafka timestamps. From and since belong to the span, to and until do not.
    None: the topic's beginning, its end as it stands."""

    from_offset: Offsets | None = None
    to_offset: Offsets | None = None
    since_ms: int | None = None
    until_ms: int | None = None


WHOLE = Span()


def parse_offsets(text: str, option: str) -> Offsets:
    """`120`, or `0:120,1:95` by partition. Raises OperatorError, which names the option."""
    try:
        if ":" not in text:
            return _whole(text)
        pairs = [part.partition(":") for part in text.split(",")]
        found = {_whole(p): _whole(o) for p, _, o in pairs}
        if len(found) != len(pairs):
            raise ValueError(text)
    except ValueError as exc:
        raise OperatorError(
            f"{option} {text!r}: write one offset (120), or one a partition (0:120,1:95), each partition once"
        ) from exc
    return found


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def resolve(kafka: Mapping[str, Any], topic: str, span: Span, budget_s: float) -> list[OffsetRange]:
    """What the span means on the topic as it stands: a range a partition, some may be empty.

    Raises OperatorError: no such topic or partition, offsets that retention took, nothing in the span.
    """
    there = watermarks(kafka, topic, budget_s)
    since = {} if span.since_ms is None else offsets_at(kafka, topic, span.since_ms, budget_s)
    until = {} if span.until_ms is None else offsets_at(kafka, topic, span.until_ms, budget_s)
    ranges = []
    for partition in _named(span, topic, there):
        low, high = there[partition]
        start = max(_at(span.from_offset, partition, low), since.get(partition, low))
        end = max(low, min(_at(span.to_offset, partition, high), until.get(partition, high), high))
        if start < low:
            raise OperatorError(f"{topic}[{partition}] has offsets {low}..{high}: {start} is gone, start at {low}")
        ranges.append(OffsetRange(topic=topic, partition=partition, start=min(start, end), end=end))
    if all(r.start == r.end for r in ranges):
        shown = ", ".join(f"{p}:{low}..{high}" for p, (low, high) in there.items())
        raise OperatorError(f"nothing to replay: no record of {topic} is in the given range (it has {shown})")
    return ranges


def _at(offsets: Offsets | None, partition: int, default: int) -> int:
    if isinstance(offsets, Mapping):
        return offsets.get(partition, default)
    return default if offsets is None else offsets


def _named(span: Span, topic: str, there: Mapping[int, object]) -> list[int]:
    named = {p for o in (span.from_offset, span.to_offset) if isinstance(o, Mapping) for p in o}
    if unknown := sorted(named - set(there)):
        raise OperatorError(f"{topic} has no partition {unknown[0]}; it has {', '.join(map(str, there))}")
    return sorted(named or there)


def in_order(fetcher: Fetcher, ranges: Sequence[OffsetRange], budget_s: float) -> Iterator[Taken]:
    """Records of all ranges by timestamp, then by the order of ranges; never out of order within a partition.

    budget_s: of one fetch. Raises Refused (retention took records meanwhile), TimedOut, Fatal.
    """
    return heapq.merge(*(_one(fetcher, r, budget_s) for r in ranges), key=lambda record: record.timestamp_ms)


def _one(fetcher: Fetcher, wanted: OffsetRange, budget_s: float) -> Iterator[Taken]:
    for start in range(wanted.start, wanted.end, CHUNK):
        part = OffsetRange(
            topic=wanted.topic, partition=wanted.partition, start=start, end=min(start + CHUNK, wanted.end)
        )
        yield from fetcher.fetch(part, Deadline(budget_s))
