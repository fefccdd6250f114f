"""What became of each record of a transactions topic: which adapter scored it, or that it is a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
import numpy as np

from shared.errors import OperatorError
from shared.kafka import Deadline, Follower, Taken
from shared.records import OffsetRange, Source, decode
from shared.topics import topic_name

_NONE, _DEAD = -1, -2
_LOOK_S = 0.2


class _Answer(msgspec.Struct, frozen=True):
    source: Source
    adapter_version: str
    bundle: str


class Answers:
    """Of the records in some offset ranges; four bytes a record."""

    def __init__(self, ranges: Sequence[OffsetRange]) -> None:
        self._ranges = {r.partition: r for r in ranges}
        self._codes = {r.partition: np.full(r.end - r.start, _NONE, np.int32) for r in ranges}
        self._index: dict[str, int] = {}
        self.versions: list[str] = []  # every version that scored a record of the ranges
        self.bundles: set[str] = set()

    def scored(self, source: Source, version: str, bundle: str) -> None:
        code = self._index.get(version, len(self.versions))
        if self._put(source.partition, source.offset, code):
            self.bundles.add(bundle)
            if code == len(self.versions):
                self._index[version] = code
                self.versions.append(version)

    def dead(self, partition: int, offset: int) -> None:
        self._put(partition, offset, _DEAD)

    def of(self, partition: int, offset: int) -> tuple[str | None, bool]:
        """(version that scored it, whether it is a dead letter); (None, False): no answer yet."""
        code = int(self._codes[partition][offset - self._ranges[partition].start])
        return (self.versions[code] if code >= 0 else None), code == _DEAD

    def _put(self, partition: int, offset: int, code: int) -> bool:
        r = self._ranges.get(partition)
        if r is None or not r.start <= offset < r.end:
            return False
        self._codes[partition][offset - r.start] = code
        return True


def read_answers(kafka: Mapping[str, Any], prefix: str, ranges: Sequence[OffsetRange], budget_s: float) -> Answers:
    """From the pipeline's predictions and dead-letters as they stand. Raises TimedOut, Refused."""
    answers = Answers(ranges)
    transactions, predictions = topic_name("transactions", prefix), topic_name("predictions", prefix)
    topics = [predictions, topic_name("dead-letters", prefix)]
    with closing(Follower(kafka, topics, name="producer-answers", budget_s=budget_s)) as follower:
        for record in follower.until_end(budget_s):
            if record.topic == predictions:
                said = decode(_Answer, record.value)
                if said.source.topic == transactions:
                    answers.scored(said.source, said.adapter_version, said.bundle)
            elif (place := dead_letter_of(record, transactions)) is not None:
                answers.dead(*place)
    return answers


def dead_letter_of(record: Taken, topic: str) -> tuple[int, int] | None:
    """(partition, offset) of the record of `topic` that this dead letter answers for, None: another topic's."""
    source, partition, offset = (record.headers.get(f"source.{n}", b"") for n in ("topic", "partition", "offset"))
    if source != topic.encode() or not (partition.isdigit() and offset.isdigit()):
        return None
    return int(partition), int(offset)


def await_answers(
    kafka: Mapping[str, Any], prefix: str, count: int, *, idle_s: float = 30.0, stop: Callable[[], bool] = lambda: False
) -> int:
    """Until `count` transactions records of a fresh pipeline have a prediction or a dead letter; the number that do.

    Raises OperatorError when idle_s pass without a new one.
    """
    transactions, predictions = topic_name("transactions", prefix), topic_name("predictions", prefix)
    topics = [predictions, topic_name("dead-letters", prefix)]
    answered, deadline = 0, Deadline(idle_s)
    with closing(Follower(kafka, topics, name="producer-await")) as follower:
        while answered < count and not stop():
            for record in follower.take(min(_LOOK_S, deadline.left_s())):
                if record.topic == predictions or dead_letter_of(record, transactions) is not None:
                    answered, deadline = answered + 1, Deadline(idle_s)
            if answered < count and deadline.passed():
                raise OperatorError(
                    f"{answered} of {count} records of {transactions} are answered, and no more came for {idle_s:g} s:"
                    f" is a scorer running on it (`selfheal score --prefix {prefix}`)?"
                )
    return answered
