"""What policy guarded keeps between records: blocks and states, what is learned from labels, evidence.

Small structs that are JSON in the state topic. The parts of the closed blocks are written once each; the rest whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from monitor.detect import Sums
from monitor.evidence import Detector, Tally
from monitor.guard import Guard
from shared.records import Source


class Span(msgspec.Struct, frozen=True):
    """The batches of one block, oldest first. first: batch_idx of the oldest. key: a running number."""

    key: int
    first: int
    sources: list[Source]


class Gathering(msgspec.Struct, frozen=True):
    """A block that has too few rows so far. sums: under each known state, in the guard's order."""

    first: int
    sources: list[Source]
    sums: tuple[Sums, ...]


class Guarded(msgspec.Struct, kw_only=True):
    """guard: with the sums of its newest blocks; spans: the same blocks' batches. gathering: the open block. blocks:
    ever closed. withdrawn: by kind of repair (a verdict, or "learned") the batch_idx when labels took one back."""

    guard: Guard
    spans: list[Span] = []
    gathering: Gathering | None = None
    blocks: int = 0
    withdrawn: dict[str, int] = {}


class Stored(msgspec.Struct, frozen=True):
    """A closed block as the topic keeps it."""

    span: Span
    sums: tuple[Sums | None, ...]


class Complete(msgspec.Struct, kw_only=True):
    """A batch whose labels are complete: where its rows and labels are. fresh: the learner has not seen it."""

    batch_idx: int
    source: Source
    labels: list[Source]
    rows: int
    fresh: bool = True


class Trial(msgspec.Struct, kw_only=True):
    """Of the line of candidates that started from the active version. version: the newest. tally: each on rows it had
    not been trained on, against the active. log_loss, log_loss_active: of the same rows, summed. righter: by how many
    rows more it decided rightly at the flag threshold. saved: cost, of the newest rows, as a sum that fades. beside_*:
    of the newest predictions scored by both, how many rows, and how many each would flag at the cost threshold.
    refused: it was said that the candidate goes too far."""

    version: str
    tally: Tally = Tally()
    rows: int = 0
    log_loss: float = 0.0
    log_loss_active: float = 0.0
    righter: int = 0
    saved: float = 0.0
    beside_rows: float = 0.0
    beside_flags: float = 0.0
    beside_active: float = 0.0
    refused: bool = False


class Learning(msgspec.Struct, kw_only=True):
    """opened: why, empty while closed. since: batches before this one say nothing about what happened. touched:
    core.batches at the opening or the newest promotion. calm: blocks in a row without a verdict. complete: newest
    complete batches, oldest first. overlay: the learned version in force over the guard's state, and why it was
    learned. detector: on the cost of the active version. tallies: per version, frozen against it as served."""

    opened: Literal["", "verdict", "cost"] = ""
    since: int = 0
    touched: int = 0
    calm: int = 0
    complete: list[Complete] = []
    trial: Trial | None = None
    overlay: str | None = None
    overlay_of: Literal["", "verdict", "cost"] = ""
    detector: Detector = Detector()
    tallies: dict[str, Tally] = {}


def dumped(guarded: Guarded) -> dict[str, bytes]:
    """The parts "guard" and "block/N". A wide table's sums take 100 KB a block, so the blocks have parts of their
    own, each written when it closes and when a state comes or goes."""
    guard, spans = guarded.guard, guarded.spans
    bare = msgspec.structs.replace(guarded, guard=msgspec.structs.replace(guard, blocks=()), spans=[])
    blocks = (Stored(span, sums) for span, sums in zip(spans, guard.blocks, strict=True))
    return {"guard": msgspec.json.encode(bare), **{f"block/{b.span.key}": msgspec.json.encode(b) for b in blocks}}


def restored(parts: Mapping[str, bytes]) -> Guarded:
    """The inverse. Raises msgspec.DecodeError."""
    stored = [msgspec.json.decode(v, type=Stored) for k, v in parts.items() if k.startswith("block/")]
    stored.sort(key=lambda block: block.span.key)
    guarded = msgspec.json.decode(parts["guard"], type=Guarded)
    guarded.guard = msgspec.structs.replace(guarded.guard, blocks=tuple(b.sums for b in stored))
    guarded.spans = [b.span for b in stored]
    return guarded
