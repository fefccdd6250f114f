"""A candidate beside the active version: what counts for it, and when that is enough. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from monitor.bounds import too_far
from monitor.evidence import Tally, log_evidence
from monitor.parts import Trial
from monitor.setup import Guarding
from shared.bundle import Array

FADE = 0.9  # of what was scored beside, a batch: the newest ten count
ROWS = 100  # scored beside the active version before a candidate may be promoted
# Labelled rows, new to the line, before it may be promoted: ten batches, as in docs/healing.md. An early stroke of luck
# is evidence too; with labels 20 batches late it would be in force for long before the next rows say otherwise.
LABELLED = 1_000


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request on the fresh rows: the line's newest candidate against the active version, before training."""

    tally: Tally
    labelled: int
    log_loss: float
    log_loss_active: float


def taught(trial: Trial, version: str, lesson: Lesson) -> Trial:
    """The line goes on with a new candidate; its predecessor's scores on rows new to it count for the line."""
    return msgspec.structs.replace(
        trial, version=version, tally=trial.tally.plus(lesson.tally), rows=trial.rows + lesson.labelled,
        log_loss=trial.log_loss + lesson.log_loss, log_loss_active=trial.log_loss_active + lesson.log_loss_active,
    )  # fmt: skip


def scored_beside(trial: Trial, active: Array, candidate: Array, cut: float) -> Trial:
    """A batch was scored by both, probabilities (n,) each."""
    return msgspec.structs.replace(
        trial,
        beside_rows=FADE * trial.beside_rows + len(active),
        beside_flags=FADE * trial.beside_flags + _above(candidate, cut),
        beside_active=FADE * trial.beside_active + _above(active, cut),
    )


def verdict(trial: Trial, guarding: Guarding) -> Literal["promote", "drop", "go on", "too far"]:
    """promote: rows and evidence are enough, log loss agrees, and the share of alerts stays in bounds; too far: but for
    the last. drop: the evidence is against the line."""
    costs = guarding.profile.costs
    if log_evidence(trial.tally.reversed(), costs) >= guarding.log_evidence:
        return "drop"
    if log_evidence(trial.tally, costs) < guarding.log_evidence or trial.log_loss >= trial.log_loss_active:
        return "go on"
    if trial.beside_rows < ROWS or trial.rows < LABELLED:
        return "go on"
    before, after = trial.beside_active / trial.beside_rows, trial.beside_flags / trial.beside_rows
    return "too far" if too_far(before, after, guarding.clean_alerts, guarding.flag_factor) else "promote"


def _above(probability: Array, cut: float) -> int:
    return int(np.count_nonzero(probability.astype(np.float64) > cut))
