"""A candidate beside the active version: what counts for it, and when that is enough. Pure."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from monitor.bounds import too_far
from monitor.evidence import Tally, log_evidence, saved
from monitor.parts import Trial
from monitor.setup import Guarding
from shared.bundle import Array, Costs

FADE = 0.9  # of what was scored beside, a batch: the newest ten count
ROWS = 100  # scored beside the active version before a candidate may be promoted
# Labelled rows, new to the line, before it may be promoted: ten batches, as in docs/healing.md. An early stroke of luck
# is evidence too; with labels 20 batches late it would be in force for long before the next rows say otherwise.
LABELLED = 1_000


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request on the fresh rows: the line's newest candidate against the active version, before training.
    righter: by how many rows more it decided rightly at the flag threshold."""

    tally: Tally
    labelled: int
    log_loss: float
    log_loss_active: float
    righter: int = 0


def taught(trial: Trial, version: str, lesson: Lesson, costs: Costs) -> Trial:
    """The line goes on with a new candidate; its predecessor's scores on rows new to it count for the line."""
    return msgspec.structs.replace(
        trial, version=version, tally=trial.tally.plus(lesson.tally), rows=trial.rows + lesson.labelled,
        log_loss=trial.log_loss + lesson.log_loss, log_loss_active=trial.log_loss_active + lesson.log_loss_active,
        righter=trial.righter + lesson.righter,
        saved=trial.saved * math.exp(-lesson.labelled / LABELLED) + saved(lesson.tally, costs),
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
    """promote: rows and evidence are enough, log loss agrees, so do accuracy and the newest rows, and the share of
    alerts stays in bounds; too far: but for the last. drop: the evidence is against the line."""
    costs = guarding.profile.costs
    if log_evidence(trial.tally.reversed(), costs) >= guarding.log_evidence:
        return "drop"
    if log_evidence(trial.tally, costs) < guarding.log_evidence or trial.log_loss >= trial.log_loss_active:
        return "go on"
    if trial.beside_rows < ROWS or trial.rows < LABELLED:
        return "go on"
    # The evidence is of the whole line: what its newest candidates have come to must not have turned.
    if trial.saved <= 0 or (trial.righter < 0 and guarding.profile.flag != guarding.profile.cut):
        return "go on"
    before, after = trial.beside_active / trial.beside_rows, trial.beside_flags / trial.beside_rows
    far = too_far(before, after, guarding.clean_alerts, guarding.flag_factor, trial.beside_rows)
    return "too far" if far else "promote"


def _above(probability: Array, cut: float) -> int:
    return int(np.count_nonzero(probability.astype(np.float64) > cut))
