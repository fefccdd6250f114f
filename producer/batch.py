"""A batch on its way to the transactions topic, and what every source of them looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from producer.generator import Labels, Rows
from shared import records


@dataclass(frozen=True)
class Batch:
    """Rows (n, d), 1 <= n <= 1,000, in the bundle's order and units, and what is known about them.

    labels: (n,) of 0/1, None where the source has none. ids, amounts: one a row. batch_id, created_at: given
    only by a source that continues a story told before (a replay); the service names batches otherwise.
    follow: labels records that this source itself sends right after the batch.
    """

    rows: Rows
    labels: Labels | None = None
    ids: Sequence[str] | None = None
    amounts: Sequence[float] | None = None
    batch_id: str | None = None
    created_at: str | None = None
    follow: tuple[records.Labels, ...] = ()


class BatchSource(Protocol):
    """Where batches come from. name: short, in every batch id of a lockstep run. features: names of the
    columns. labelled: every batch carries its labels. batches(): the batches in order, read as they are asked
    for; called once per run."""

    @property
    def name(self) -> str: ...
    @property
    def features(self) -> Sequence[str]: ...
    @property
    def labelled(self) -> bool: ...
    def batches(self) -> Iterator[Batch]: ...
