"""When labels are sent: with the batch, so many batches later, or never; and a random audit share, early.

Pure: batches go in, labels records come out.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from producer.generator import Labels
from shared import records
from shared.errors import OperatorError

DELAY_MAX = 100_000  # the labels not sent yet are held in memory


@dataclass(frozen=True)
class LabelPlan:
    """delay: batches between a batch and its complete labels; None: they are never sent. audit_share: of all
    transactions, whose labels come with kind audit after audit_delay batches, whatever the delay. seed: of the
    rule that picks them. flush: what is still outstanding when the stream ends is sent then, not left unsaid."""

    delay: int | None = 0
    audit_share: float = 0.0
    audit_delay: int = 0
    seed: int = 0
    flush: bool = False

    def __post_init__(self) -> None:
        for what, value in (("label delay", self.delay), ("audit delay", self.audit_delay)):
            if value is not None and not 0 <= value <= DELAY_MAX:
                raise OperatorError(f"{what} {value}: give 0 to {DELAY_MAX} batches")
        if not 0 <= self.audit_share <= 1:
            raise OperatorError(f"audit share {self.audit_share}: give a share from 0 to 1")


def audited(seed: int, transaction_id: str, share: float) -> bool:
    """The audit's rule, which an auditor can repeat: BLAKE2b-64 of "seed:id", as a fraction of 2**64, < share."""
    digest = hashlib.blake2b(f"{seed}:{transaction_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class LabelQueue:
    """Labels on their way: at most max(delay, audit_delay) + 1 batches of them are held."""

    def __init__(self, plan: LabelPlan) -> None:
        self._plan = plan
        self._k = 0
        self._waiting: dict[str, deque[tuple[int, records.Labels]]] = {"audit": deque(), "delayed": deque()}

    def add(self, batch_id: str, ids: Sequence[str], labels: Labels) -> list[records.Labels]:
        """The labels records due right after this batch, in order: audit before delayed, older before newer."""
        self._k += 1
        plan, truth = self._plan, labels.tolist()
        if plan.audit_share:
            picked = [i for i, each in enumerate(ids) if audited(plan.seed, each, plan.audit_share)]
            if picked:
                audit = records.Labels(
                    batch_id=batch_id,
                    transaction_ids=[ids[i] for i in picked],
                    labels=[truth[i] for i in picked],
                    kind="audit",
                )
                self._waiting["audit"].append((self._k + plan.audit_delay, audit))
        if plan.delay is not None:
            whole = records.Labels(batch_id=batch_id, transaction_ids=list(ids), labels=truth)
            self._waiting["delayed"].append((self._k + plan.delay, whole))
        return self._due(self._k)

    def rest(self) -> list[records.Labels]:
        """What is outstanding at the end of the stream; empties the queue."""
        return self._due(None)

    @property
    def outstanding(self) -> int:
        """Labels records not sent yet."""
        return sum(len(queue) for queue in self._waiting.values())

    def _due(self, k: int | None) -> list[records.Labels]:
        due = []
        for queue in self._waiting.values():
            while queue and (k is None or queue[0][0] <= k):
                due.append(queue.popleft()[1])
        return due
