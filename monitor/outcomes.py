"""What a heal came to: adoption, health, rollback, failure, a version that a scorer refused."""

from __future__ import annotations

from monitor import guarded, learning, says
from monitor.health import Entry, Score, best, decay, emptied, surplus, updated
from monitor.parts import Learning
from monitor.rows import replaced
from monitor.settling import awaited, settle
from monitor.setup import Decision, Setup
from monitor.state import Batch, State
from shared.records import FIRST_VERSION, Id, Record, decode


class _Kind(Record, frozen=True):
    kind: str
    service: str = ""
    request_id: str = ""


class _Finished(Record, frozen=True):
    """The facts of heal-finished that are read here; the scores are None where no row had a label."""

    request_id: str
    post_version: Id
    accuracy_before: float | None = None
    f1_before: float | None = None
    accuracy_after: float | None = None
    f1_after: float | None = None
    loss_total: float | None = None
    loss_label: float | None = None
    loss_rule: float | None = None
    loss_entropy: float | None = None


class _Failed(Record, frozen=True):
    request_id: str
    reason: str = "no reason given"


class _Rejected(Record, frozen=True):
    version: str
    reason: str = "no reason given"
    field: str | None = None


def on_event(state: State, setup: Setup, value: bytes | None, at: str) -> list[Decision]:
    """An events record of any service; all but four kinds are for people. Raises Refused."""
    head = decode(_Kind, value)
    if head.service == says.SERVICE:
        return []
    if head.kind in ("heal-finished", "diagnosed"):
        heal = awaited(state, head.request_id)
        if heal is None:
            return []
        if heal.purpose == "diagnose":
            return guarded.on_diagnosis(state, setup, value, at)
        if heal.purpose == "learn":
            return learning.on_lesson(state, setup, value, at)
        return _finished(state, setup, decode(_Finished, value), at)
    if head.kind == "heal-failed":
        return _failed(state) if awaited(state, decode(_Failed, value).request_id) else []
    if head.kind == "adapter-rejected":
        return _rejected(state, decode(_Rejected, value), at)
    return []


def expired(state: State, at: str, timeout_s: float) -> list[Decision]:
    """The heal under way had no outcome in time; a later one is not adopted."""
    return given_up(state, at, f"no outcome within {timeout_s:g} s", "; is a healer running?")


def given_up(state: State, at: str, reason: str, hint: str = "") -> list[Decision]:
    """Without the outcome of the heal under way, if there is one."""
    heal = state.core.heal
    if heal is None:
        return []
    batch = state.pending[heal.batch_id]
    message = f"batch {batch.row.batch_idx}: heal given up, {reason}{hint}"
    at = batch.row.timestamp if batch.lockstep else at
    facts = {"request_id": heal.request_id, "reason": reason, **says.of_batch(batch)}
    return [says.event("heal-failed", at, message, **facts), *_failed(state)]


def policy_changed(state: State, setup: Setup, at: str) -> list[Decision]:
    """At start, where another policy wrote the state: its request is given up, its part of the state let go."""
    before = state.core.policy
    if before in ("", setup.policy):
        return []
    decisions = given_up(state, at, f"the policy changed from {before} to {setup.policy}")
    if setup.guarding is None:
        decisions += learning.without_candidate(state, at, None, "the policy changed")
        state.guarded, state.learning = None, Learning()
    return decisions


def watch_served(state: State, setup: Setup, batch: Batch, at: str) -> list[Decision]:
    """After the first heal, batches that need none are evidence too, where the active version served them."""
    row, core = batch.row, state.core
    if core.health.baseline is None or row.adapter_version != core.active:
        return []
    if row.f1_healed is None or row.accuracy_healed is None:
        return []
    decisions = _update_health(state, setup, batch, Score(row.f1_healed, row.accuracy_healed), at)
    if decisions:
        batch.row = replaced(batch, action="rollback", rolled_back=True, state="ROLLED_BACK")
    return decisions


def _finished(state: State, setup: Setup, facts: _Finished, at: str) -> list[Decision]:
    core = state.core
    heal, request_id = core.heal, facts.request_id
    if heal is None:
        return []
    batch = state.pending[heal.batch_id]
    at = batch.row.timestamp if batch.lockstep else at
    version, previous = facts.post_version, core.active
    core.active, core.heal = version, None
    before, after = says.short(facts.accuracy_before), says.short(facts.accuracy_after)
    decisions = [
        says.active(version, previous, at, request_id, batch.row.batch_id),
        says.event(
            "adapter-activated", at, f"{version} activated (accuracy {before} -> {after} on its own rows)",
            version=version, previous=previous, request_id=request_id, accuracy_before=facts.accuracy_before,
            accuracy_after=facts.accuracy_after, f1_before=facts.f1_before, f1_after=facts.f1_after,
            **says.of_batch(batch),
        ),
    ]  # fmt: skip
    rollback: list[Decision] = []
    if facts.f1_after is not None and facts.accuracy_after is not None:
        score = Score(facts.f1_after, facts.accuracy_after)
        _register(state, Entry(version=version, batch_idx=batch.row.batch_idx, f1=score.f1, accuracy=score.accuracy))
        rollback = _update_health(state, setup, batch, score, at)
    lift = batch.row.acc_lift_post_heal
    if facts.accuracy_after is not None and batch.row.accuracy_shadow is not None:
        lift = facts.accuracy_after - batch.row.accuracy_shadow
    batch.row = replaced(
        batch,
        accuracy_post_heal=facts.accuracy_after,
        f1_post_heal=facts.f1_after,
        acc_lift_post_heal=lift,
        loss_total=facts.loss_total,
        loss_label=facts.loss_label,
        loss_rule=facts.loss_rule,
        loss_entropy=facts.loss_entropy,
        rolled_back=bool(rollback),
    )
    return decisions + rollback + settle(state, batch, "heal+rollback" if rollback else "heal")


def _failed(state: State) -> list[Decision]:
    heal, state.core.heal = state.core.heal, None
    state.count("heals_failed")
    if heal is not None and heal.purpose == "learn":
        learning.failed(state)
    return [] if heal is None else settle(state, state.pending[heal.batch_id], "heal-failed")


def _register(state: State, entry: Entry) -> None:
    state.registry[entry.version] = entry
    state.touched.add(f"registry/{entry.version}")
    dropped = surplus(state.registry.values())
    if dropped is not None:
        _forget(state, dropped.version)


def _forget(state: State, version: str) -> None:
    if state.registry.pop(version, None) is not None:
        state.touched.add(f"registry/{version}")


def _update_health(state: State, setup: Setup, batch: Batch, score: Score, at: str) -> list[Decision]:
    """One more score; the rollback it brings about, if any."""
    core, limits = state.core, setup.thresholds
    core.health = updated(core.health, score, limits.health_window)
    why, target = decay(core.health, limits.rollback_f1_drop, limits.rollback_acc_drop), best(state.registry.values())
    if why is None:
        return []
    core.health = emptied(core.health)
    if target is None or target.version == core.active:
        return []  # nothing better to go back to: it is watched afresh
    previous, core.active = core.active, target.version
    return [
        says.active(target.version, previous, at, f"mean {why.what} fell", batch.row.batch_id),
        says.rolled_back(at, batch, previous, target, why),
    ]


def _rejected(state: State, facts: _Rejected, at: str) -> list[Decision]:
    """A scorer could not load a version. If that one is active, the best other takes its place, else v1. A scorer
    that runs another bundle is itself at fault: nothing is taken back for it."""
    core = state.core
    if facts.field == "bundle" or facts.version == FIRST_VERSION:
        return []
    if state.guarded is not None:
        return _rejected_guarded(state, facts, at)
    _forget(state, facts.version)
    if facts.version != core.active:
        return []
    target = best(state.registry.values())
    version = FIRST_VERSION if target is None else target.version
    previous, core.active, core.health = core.active, version, emptied(core.health)
    message = f"rolled back {previous} -> {version}: a scorer refused {previous} ({facts.reason})"
    return [
        says.active(version, previous, at, f"{previous} was refused"),
        says.event("rolled-back", at, message, from_version=previous, to_version=version, reason=facts.reason),
    ]


def _rejected_guarded(state: State, facts: _Rejected, at: str) -> list[Decision]:
    """A repair is forgotten, what was learned goes back to what it was learned over."""
    core, version = state.core, facts.version
    previous = core.active
    if version == state.learning.overlay:
        decisions = learning.back(state, at, None, f"{version} was refused")
    elif state.learning.trial is not None and version == state.learning.trial.version:
        decisions = learning.without_candidate(state, at, None, f"{version} was refused")
    else:
        decisions = guarded.dropped(state, version, at, None, f"{version} was refused")
    if core.active == previous:
        return decisions
    message = f"rolled back {previous} -> {core.active}: a scorer refused {version} ({facts.reason})"
    facts_ = {"from_version": previous, "to_version": core.active, "reason": facts.reason}
    return [*decisions, says.event("rolled-back", at, message, **facts_)]
