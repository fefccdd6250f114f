"""What a heal came to: adoption, health, rollback, failure, a version that a scorer refused."""

from __future__ import annotations

from monitor import says
from monitor.health import Entry, Score, best, decay, emptied, surplus, updated
from monitor.rows import replaced
from monitor.setup import Decision, Setup
from monitor.state import Batch, Heal, State
from shared.records import FIRST_VERSION, Id, Record, decode


class _Kind(Record, frozen=True):
    kind: str
    service: str = ""


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
    """An events record of any service; all but three kinds are for people. Raises Refused."""
    head = decode(_Kind, value)
    if head.service == says.SERVICE:
        return []
    if head.kind == "heal-finished":
        return _finished(state, setup, decode(_Finished, value), at)
    if head.kind == "heal-failed":
        failed = decode(_Failed, value)
        return _failed(state, failed.reason) if _awaited(state, failed.request_id) else []
    if head.kind == "adapter-rejected":
        return _rejected(state, decode(_Rejected, value), at)
    return []


def expired(state: State, at: str, timeout_s: float) -> list[Decision]:
    """The heal under way had no outcome in time; a later one is not adopted."""
    heal = state.core.heal
    if heal is None:
        return []
    batch = state.pending[heal.batch_id]
    reason = f"no outcome within {timeout_s:g} s"
    message = f"batch {batch.row.batch_idx}: heal given up, {reason}; is a healer running?"
    at = batch.row.timestamp if batch.lockstep else at
    facts = {"request_id": heal.request_id, "reason": reason, **says.of_batch(batch)}
    return [says.event("heal-failed", at, message, **facts), *_failed(state, reason)]


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


def _awaited(state: State, request_id: str) -> Heal | None:
    """The heal under way if the outcome is its own: one given up, or asked by a person, is not adopted."""
    if state.core.heal is not None and state.core.heal.request_id == request_id:
        return state.core.heal
    state.count("late_outcomes")
    return None


def _finished(state: State, setup: Setup, facts: _Finished, at: str) -> list[Decision]:
    core = state.core
    heal, request_id = _awaited(state, facts.request_id), facts.request_id
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
    return decisions + rollback + _settle(state, batch, "heal+rollback" if rollback else "heal")


def _failed(state: State, reason: str) -> list[Decision]:
    heal, state.core.heal = state.core.heal, None
    state.count("heals_failed")
    return [] if heal is None else _settle(state, state.pending[heal.batch_id], "heal-failed")


def _settle(state: State, batch: Batch, action: str) -> list[Decision]:
    """The heal that this batch asked for is over; the batch is done unless labels are still to come."""
    shown = "ROLLED_BACK" if batch.row.rolled_back else "DRIFTING" if batch.drifting else "HEALTHY"
    batch.row = replaced(batch, state=shown, action=action, settled=True, next_version=state.core.active)
    state.put(batch)
    if batch.complete:
        state.retire(batch.row.batch_id)
    return [Decision("metrics", batch.row.batch_id, batch.row)]


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
