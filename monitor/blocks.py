"""Batches gathered into blocks of at least 100 rows, of which only sums are kept. Pure."""

from __future__ import annotations

from monitor.detect import Sums, sums_of
from monitor.guard import Guard
from monitor.parts import Gathering, Guarded, Span
from shared.bundle import Array
from shared.profile import Profile
from shared.records import Source

ROWS = 100  # from which the law of a block's sums is the one that the threshold was made for


def gathered(
    guarded: Guarded, profile: Profile, rows: Array, batch_idx: int, source: Source
) -> tuple[Span, tuple[Sums, ...]] | None:
    """rows (n, d) of the next batch go into the open block. The block where it is full, and a new one is open."""
    alignments = [k.alignment for k in guarded.guard.known]
    sums = tuple(sums_of(profile, profile.read(rows, a), a.fraud_rate) for a in alignments)
    block = Gathering(batch_idx, [source], sums)
    if (before := guarded.gathering) is not None:
        together = tuple(a.plus(b) for a, b in zip(before.sums, sums, strict=True))
        block = Gathering(before.first, [*before.sources, source], together)
    if block.sums[0].rows < ROWS:
        guarded.gathering = block
        return None
    guarded.gathering = None
    guarded.blocks += 1
    return Span(guarded.blocks, block.first, block.sources), block.sums


def keep(guarded: Guarded, guard: Guard, span: Span | None = None) -> None:
    """Take over the guard after a step, with the batches of the blocks that it still holds. The open block has no sums
    under a state that came, so it starts again when the states change."""
    if [k.name for k in guard.known] != [k.name for k in guarded.guard.known]:
        guarded.gathering = None
    spans = guarded.spans if span is None else [*guarded.spans, span]
    guarded.guard, guarded.spans = guard, spans[len(spans) - len(guard.blocks) :]


def first_batch(guarded: Guarded, blocks: int) -> int:
    """batch_idx of the oldest batch of the newest blocks, of all that are kept where there are fewer."""
    return guarded.spans[-min(max(blocks, 1), len(guarded.spans))].first
