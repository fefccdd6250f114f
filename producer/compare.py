"""Are two pipelines' probabilities the same, bit for bit?"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from shared.kafka import Follower
from shared.records import Source, decode
from shared.topics import topic_name

NAMED_MAX = 100


class _Scored(msgspec.Struct, frozen=True):
    batch_id: str
    transaction_ids: list[str]
    probability: list[float]
    shadow_probability: list[float]
    adapter_version: str
    bundle: str
    source: Source


@dataclass(frozen=True)
class Comparison:
    """batches, rows: predicted by both. differing: batches of these with other transactions, adapter, bundle, or
    probabilities (also the shadow's) that are not the same float32 bits; named: the first 100 of them.
    only_old, only_new: predictions that the other pipeline lacks; a replayed range has many of the first."""

    batches: int
    rows: int
    differing: int
    named: tuple[str, ...]
    only_old: int
    only_new: int

    @property
    def same(self) -> bool:
        """Everything in the new pipeline is as it was in the old one, and there is something."""
        return self.batches > 0 and self.differing == 0 and self.only_new == 0


def compare(kafka: Mapping[str, Any], old_prefix: str, new_prefix: str, *, budget_s: float = 300.0) -> Comparison:
    """Reads both predictions topics as they stand, about 300 bytes of memory a batch. Raises TimedOut, Refused,
    OperatorError (no such topic). A batch id that occurs several times is matched in the order of its sources."""
    old, new = (_read(kafka, prefix, budget_s) for prefix in (old_prefix, new_prefix))
    return old.compare(new)


@dataclass(frozen=True, order=True, slots=True)
class _Print:
    """Where the batch stood, and a fingerprint of what was said of it."""

    partition: int
    offset: int
    digest: bytes
    rows: int


class Fingerprints:
    """Of the predictions of one pipeline, by batch id."""

    def __init__(self) -> None:
        self._found: dict[str, list[_Print]] = {}

    def add(self, value: bytes | None) -> None:
        """One predictions record. Raises Refused."""
        said = decode(_Scored, value)
        entry = _Print(said.source.partition, said.source.offset, _digest(said), len(said.probability))
        bisect.insort(self._found.setdefault(said.batch_id, []), entry)

    def compare(self, new: Fingerprints) -> Comparison:
        """This one is the old."""
        batches = rows = differing = only_new = 0
        named: list[str] = []
        for batch_id, scored in new._found.items():
            before = self._found.get(batch_id, [])
            for was, now in zip(before, scored, strict=False):
                batches, rows = batches + 1, rows + now.rows
                if was.digest != now.digest:
                    differing += 1
                    named.append(batch_id)
            only_new += max(0, len(scored) - len(before))
        only_old = sum(map(len, self._found.values())) - batches
        return Comparison(batches, rows, differing, tuple(named[:NAMED_MAX]), only_old, only_new)


def _read(kafka: Mapping[str, Any], prefix: str, budget_s: float) -> Fingerprints:
    found = Fingerprints()
    topic = topic_name("predictions", prefix)
    with closing(Follower(kafka, [topic], name="producer-compare", budget_s=budget_s)) as follower:
        for record in follower.until_end(budget_s):
            found.add(record.value)
    return found


def _digest(said: _Scored) -> bytes:
    """16 bytes of BLAKE2b over everything that must not differ."""
    h = hashlib.blake2b(digest_size=16)
    h.update(msgspec.json.encode([said.transaction_ids, said.adapter_version, said.bundle]))
    for numbers in (said.probability, said.shadow_probability):
        h.update(np.asarray(numbers, np.float32).tobytes())
    return h.digest()
