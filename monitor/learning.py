"""What is learned from labels: when, from which batches, and what comes of it. No I/O.

Closed as a rule. It opens where a diagnosis says that only labels can help, or where the served network's cost on
labelled rows has risen by itself; docs/protocol.md, "Deciding, policy guarded", 6.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from monitor import says, says_guarded
from monitor.bounds import resting
from monitor.evidence import Detector, Tally, fed, level, log_evidence
from monitor.guard import Guard
from monitor.parts import Complete, Trial
from monitor.rows import Judged
from monitor.settling import awaited, settle
from monitor.setup import Decision, Guarding, Setup
from monitor.state import Batch, Heal, State
from monitor.trial import Lesson, scored_beside, taught, verdict
from shared.records import FIRST_VERSION, Count, Id, Record, decode

REPLAYED = 10  # complete batches that a lesson goes over again, at most
FRESH = 10  # new ones in a lesson, at most; what is older is only replayed
ROWS_MIN = 50  # labelled rows of a lesson; the healer refuses fewer
ROWS_MAX = 10_000  # half of what a healer reads by default (HEALER_ROWS_MAX)
LABEL_RECORDS = 5_000  # of a lesson: a request names 10,000 at most
CALM = 10  # blocks in a row without a verdict after which what opened learning has ended
REST = 100  # batches without a promotion or an alarm of the cost after which learning for the cost ends
KIND = "learned"  # of repair, for the cooldown


class Taught(Record, frozen=True):
    """The facts of a lesson that are read here."""

    request_id: str
    post_version: Id
    tally: Tally
    fresh_labelled: Count
    log_loss_base: float
    log_loss_active: float
    right_base: Count = 0
    right_active: Count = 0


def moved(state: State, at: str, batch: Batch | None) -> list[Decision]:
    """Another state of the guard is in force: what was learned under the one before says nothing here."""
    learning = state.learning
    decisions = without_candidate(state, at, batch, "another state is in force")
    learning.opened, learning.overlay, learning.overlay_of = "", None, ""
    learning.detector, learning.calm = Detector(), 0
    return decisions


def open_(state: State, why: Literal["verdict", "cost"], since: int) -> None:
    """since: batch_idx of the first batch that shows what happened."""
    if not state.learning.opened:
        state.learning.opened, state.learning.since, state.learning.touched = why, since, state.core.batches


def on_block(state: State, guard: Guard, batch: Batch, at: str) -> list[Decision]:
    """A block has been seen by the guard: has what opened learning ended?"""
    learning, decisions = state.learning, list[Decision]()
    learning.calm = learning.calm + 1 if guard.verdict == "none" else 0
    if learning.calm >= CALM:
        if learning.opened == "verdict":
            decisions += _close(state, at, batch)
        if learning.overlay is not None and learning.overlay_of == "verdict":
            version, previous = _guards_own(state), learning.overlay
            decisions += back(state, at, batch, "drift-ended")
            decisions.append(says_guarded.ended(at, batch, version, previous, "what labels were needed for"))
    if learning.opened == "cost" and state.core.batches - learning.touched >= REST:
        decisions += _close(state, at, batch)
    return decisions


def beside(state: State, guarding: Guarding, prediction: Judged) -> None:
    """A batch that was scored by the candidate too."""
    trial = state.learning.trial
    if trial is None or prediction.candidate_probability is None or prediction.adapter_version != state.core.active:
        return
    active, candidate = (np.array(p, "<f4") for p in (prediction.probability, prediction.candidate_probability))
    state.learning.trial = scored_beside(trial, active, candidate, guarding.cost_cut)


def completed(state: State, guarding: Guarding, batch: Batch) -> None:
    """All labels of a batch have come, for the first time: a lesson to come, and word of the served cost."""
    row, learning = batch.row, state.learning
    lesson = Complete(batch_idx=row.batch_idx, source=batch.source, labels=batch.joined, rows=row.rows)
    learning.complete = [*learning.complete, lesson][-(REPLAYED + FRESH) :]
    if row.adapter_version != state.core.active or row.cost_healed is None:
        return
    learning.detector = fed(learning.detector, row.cost_healed / guarding.dearest, guarding.cost_limit)
    if level(learning.detector) >= guarding.quiet_batches:
        learning.detector, learning.touched = Detector(), state.core.batches
        open_(state, "cost", learning.complete[0].batch_idx)


def asked(state: State, setup: Setup, guarding: Guarding, batch: Batch, at: str) -> list[Decision]:
    """A lesson, where there is something new to learn from. Nothing is under way."""
    learning, active = state.learning, state.core.active
    about = [c for c in learning.complete if c.batch_idx >= learning.since]
    if not learning.opened or not any(c.fresh for c in about):
        return []
    lessons = _bounded([c for c in about if not c.fresh][-REPLAYED:] + [c for c in about if c.fresh][-FRESH:])
    rows, fresh = sum(c.rows for c in lessons), sum(c.fresh for c in lessons)
    if rows < ROWS_MIN or not fresh:
        return []
    heal = state.core.heal = Heal(
        request_id=f"learn-{batch.row.batch_idx}", batch_id=batch.row.batch_id,
        base_version=active if learning.trial is None else learning.trial.version, purpose="learn",
    )  # fmt: skip
    why = "no repair without labels" if learning.opened == "verdict" else "its cost on labelled rows has risen"
    decisions = [
        says_guarded.requested(heal, batch, at, why, rows),
        says_guarded.learn(heal, batch, lessons, fresh, active, setup),
    ]
    for each in about:
        each.fresh = False
    return decisions


def on_lesson(state: State, setup: Setup, value: bytes | None, at: str) -> list[Decision]:
    """The healer's answer to the request under way. Raises Refused, with the state unchanged."""
    facts = decode(Taught, value)
    heal = awaited(state, facts.request_id)
    if heal is None:
        return []
    batch, state.core.heal = state.pending[heal.batch_id], None
    at = batch.row.timestamp if batch.lockstep else at
    guarding, learning = setup.guarding, state.learning
    expected = state.core.active if learning.trial is None else learning.trial.version
    if guarding is None or not learning.opened or heal.base_version != expected:
        state.count("answers_stale")
        return settle(state, batch, "none")
    lesson = Lesson(
        tally=facts.tally,
        labelled=facts.fresh_labelled,
        log_loss=facts.log_loss_base,
        log_loss_active=facts.log_loss_active,
        righter=facts.right_base - facts.right_active,
    )
    line = learning.trial or Trial(version=facts.post_version)
    trial = learning.trial = taught(line, facts.post_version, lesson, guarding.profile.costs)
    found = verdict(trial, guarding)
    if found == "promote" and not resting(_withdrawn(state), KIND, state.core.batches, guarding.cooldown):
        return _promoted(state, guarding, batch, trial, at) + settle(state, batch, "promote")
    if found == "drop":
        why = f"labels speak against it, ln E {log_evidence(trial.tally.reversed(), guarding.profile.costs):.1f}"
        return without_candidate(state, at, batch, why) + settle(state, batch, "learn")
    decisions = [says_guarded.candidate(trial.version, at, "on trial", batch.row.batch_id)]
    if found == "too far" and not trial.refused:
        trial.refused = True
        after = trial.beside_flags / trial.beside_rows
        why = (
            f"it would alert on {after:.1%} of the transactions, {guarding.clean_alerts:.1%} of clean ones: more than "
            f"MONITOR_FLAG_FACTOR {guarding.flag_factor:g} away"
        )
        decisions.append(says_guarded.rejected(at, batch, trial.version, why))
    return decisions + settle(state, batch, "learn")


def back(state: State, at: str, batch: Batch | None, reason: str) -> list[Decision]:
    """From what was learned to the guard's own state; the event is the caller's."""
    learning, previous = state.learning, state.core.active
    state.core.active = _guards_own(state)
    learning.overlay, learning.overlay_of, learning.detector = None, "", Detector()
    return [
        *without_candidate(state, at, batch, "another version is in force"),
        says.active(state.core.active, previous, at, reason, None if batch is None else batch.row.batch_id),
    ]


def failed(state: State) -> None:
    """A lesson came to nothing. What it went over is left alone: its rows may be gone."""
    state.learning.complete = [c for c in state.learning.complete if c.fresh]


def columns(state: State, guarding: Guarding) -> dict[str, Any]:
    """Of a metrics row."""
    trial = state.learning.trial
    if trial is None:
        return {"candidate_version": None, "evidence": None}
    return {"candidate_version": trial.version, "evidence": log_evidence(trial.tally, guarding.profile.costs)}


def _bounded(lessons: list[Complete]) -> list[Complete]:
    """The newest, as many as a healer reads."""
    rows = records = 0
    for k, lesson in enumerate(reversed(lessons)):
        rows, records = rows + lesson.rows, records + len(lesson.labels)
        if rows > ROWS_MAX or records > LABEL_RECORDS:
            return lessons[len(lessons) - k :]
    return lessons


def _guards_own(state: State) -> str:
    return FIRST_VERSION if state.guarded is None else state.guarded.guard.state.name


def _withdrawn(state: State) -> dict[str, int]:
    return {} if state.guarded is None else state.guarded.withdrawn


def _promoted(state: State, guarding: Guarding, batch: Batch, trial: Trial, at: str) -> list[Decision]:
    learning, previous = state.learning, state.core.active
    state.core.active = learning.overlay = trial.version
    learning.overlay_of, learning.touched, learning.detector = learning.opened, state.core.batches, Detector()
    evidence = log_evidence(trial.tally, guarding.profile.costs)
    return [
        *without_candidate(state, at, batch, "promoted"),
        says.active(trial.version, previous, at, "learned", batch.row.batch_id),
        says_guarded.promoted(at, batch, trial, previous, evidence),
    ]


def _close(state: State, at: str, batch: Batch) -> list[Decision]:
    state.learning.opened = ""
    return without_candidate(state, at, batch, "what was learned from has ended")


def without_candidate(state: State, at: str, batch: Batch | None, why: str) -> list[Decision]:
    """The trial has ended."""
    if state.learning.trial is None:
        return []
    state.learning.trial = None
    return [says_guarded.candidate(None, at, why, None if batch is None else batch.row.batch_id)]
