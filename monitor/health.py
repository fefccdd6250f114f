"""Health after a heal: when the recent scores have fallen too far below the first heal's, and what to go back to."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

FIRST = 3  # updates before the window is judged, as published
REGISTRY_MAX = 1_000


class Score(msgspec.Struct, frozen=True):
    """F1 and accuracy on one batch."""

    f1: float
    accuracy: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """baseline: the scores at the first successful heal, None before. window: the newest scores, oldest first."""

    baseline: Score | None = None
    window: list[Score] = []


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A post-heal adapter and how it did on the batch it was fitted to: what a rollback chooses from."""

    version: str
    batch_idx: int
    f1: float
    accuracy: float


class Decay(msgspec.Struct, frozen=True, kw_only=True):
    """Why the health window asks for a rollback. what: F1 or accuracy; drop: the fall that is tolerated."""

    what: str
    mean_f1: float
    mean_accuracy: float
    baseline: Score
    drop: float


def updated(health: Health, score: Score, size: int) -> Health:
    """With one more score; the first one ever becomes the baseline. size: most scores kept."""
    return Health(baseline=health.baseline or score, window=[*health.window, score][-size:])


def emptied(health: Health) -> Health:
    """After a rollback: the window starts again, the baseline stays."""
    return Health(baseline=health.baseline)


def decay(health: Health, f1_drop: float, acc_drop: float) -> Decay | None:
    """From 3 updates on: mean F1 or mean accuracy more than the given drop below the baseline; else None."""
    baseline, n = health.baseline, len(health.window)
    if baseline is None or n < FIRST:
        return None
    f1 = sum(s.f1 for s in health.window) / n
    accuracy = sum(s.accuracy for s in health.window) / n
    if f1 < baseline.f1 - f1_drop:
        what, drop = "F1", f1_drop
    elif accuracy < baseline.accuracy - acc_drop:
        what, drop = "accuracy", acc_drop
    else:
        return None
    return Decay(what=what, mean_f1=f1, mean_accuracy=accuracy, baseline=baseline, drop=drop)


def best(entries: Iterable[Entry]) -> Entry | None:
    """The highest F1 on its own batch; of equals the newest."""
    return max(entries, key=lambda e: (e.f1, e.batch_idx), default=None)


def surplus(entries: Collection[Entry]) -> Entry | None:
    """The entry to forget when there are too many: the lowest F1, but never the newest."""
    if len(entries) <= REGISTRY_MAX:
        return None
    newest = max(e.batch_idx for e in entries)
    return min((e for e in entries if e.batch_idx != newest), key=lambda e: (e.f1, e.batch_idx))
