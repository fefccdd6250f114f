"""Policy guarded, from rows to requests and back: what the guard says is done. No I/O.

docs/protocol.md, "Deciding, policy guarded". monitor/learning.py is the part that labels play.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from monitor import learning, says, says_guarded
from monitor.blocks import first_batch, gathered, keep
from monitor.bounds import resting, too_far
from monitor.detect import Sums, worst_column
from monitor.guard import Activate, Answer, Ask, Known, begin, forget, hold, on_answer, on_block, rested
from monitor.parts import Guarded, Span
from monitor.rows import replaced
from monitor.settling import awaited, settle, shown
from monitor.setup import Decision, Guarding, Setup
from monitor.state import Batch, Heal, State
from shared.alignment import Alignment, identity
from shared.bundle import Array
from shared.errors import Refused
from shared.records import FIRST_VERSION, Count, Id, Record, decode

REFUSED = ("unexplained", "outage")  # verdicts that only labels can help


class Found(Record, frozen=True):
    """The facts of a diagnosis that are read here; post_version where there is a repair."""

    request_id: str
    verdict: str
    n_blocks: Count
    promote: bool
    active_fits: bool
    post_version: Id | None = None
    fraud_rate: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    order: tuple[int, ...] = ()
    shift: tuple[float, ...] = ()
    scale: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = ()
    flagged_before: float | None = None
    flagged_after: float | None = None
    since_batch_idx: int | None = None
    rows: Count = 0


def begun(state: State, guarding: Guarding) -> Guarded:
    """The guard's part of the state. What another policy left in force counts as learned over the frozen network."""
    if state.guarded is None:
        profile = guarding.profile
        state.guarded = Guarded(guard=begin(identity(profile.d, profile.fraud_rate)))
        if state.core.active != FIRST_VERSION:
            state.learning.overlay = state.core.active
    return state.guarded


def on_batch(
    state: State, setup: Setup, guarding: Guarding, batch: Batch, rows: Array | None, at: str
) -> list[Decision]:
    """The newest batch was scored. rows (n, d) float32 as fed, None where they are gone."""
    guarded, decisions = begun(state, guarding), list[Decision]()
    action = "none"
    if rows is None or len(rows) != len(batch.ids):
        state.count("rows_gone", len(batch.ids))
    else:
        keep(guarded, rested(guarded.guard, state.core.batches))
        block = gathered(guarded, guarding.profile, rows, batch.row.batch_idx, batch.source)
        if block is not None:
            decisions, action = _on_block(state, setup, guarding, batch, *block, at)
    if state.core.heal is None:
        decisions += learning.asked(state, setup, guarding, batch, at)
    heal = state.core.heal
    asked = heal is not None and heal.batch_id == batch.row.batch_id
    batch.row = replaced(
        batch, state="HEALING" if asked else shown(state, batch), verdict=guarded.guard.verdict,
        alarm_z=guarded.guard.z, settled=not asked, next_version=state.core.active,
        action=heal.purpose if asked and heal is not None else action,
        **learning.columns(state, guarding),
    )  # fmt: skip
    return decisions


def _on_block(
    state: State, setup: Setup, guarding: Guarding, batch: Batch, span: Span, sums: tuple[Sums, ...], at: str
) -> tuple[list[Decision], str]:
    guarded = begun(state, guarding)
    before = guarded.guard
    guard, action = on_block(before, sums, guarding.profile, guarding.h, may_ask=state.core.heal is None)
    keep(guarded, guard, span)
    decisions: list[Decision] = []
    if guard.alarmed and guard.alarm == guard.count and not before.alarmed:
        seen = [frozen for frozen, *_ in guard.blocks if frozen is not None]
        worst = worst_column(guarding.profile, seen, guard.known[0].alignment.fraud_rate, guarding.h)
        decisions.append(says_guarded.alarm(at, batch, *worst, guarded.spans[0].first, setup, guarding))
    if isinstance(action, Activate):
        decisions += _activate(state, setup, guarding, batch, action, before.state, at)
    elif isinstance(action, Ask):
        decisions += _ask(state, setup, guarded, batch, action, at)
    decisions += learning.on_block(state, guard, batch, at)
    return decisions, action.reason if isinstance(action, Activate) else "none"


def _ask(state: State, setup: Setup, guarded: Guarded, batch: Batch, ask: Ask, at: str) -> list[Decision]:
    heal = state.core.heal = Heal(
        request_id=f"diagnose-{batch.row.batch_idx}", batch_id=batch.row.batch_id, base_version=state.core.active,
        purpose="diagnose",
    )  # fmt: skip
    why = says_guarded.why_asked(ask.reason, heal.base_version)
    rows = sum(frozen.rows for frozen, *_ in guarded.guard.blocks if frozen is not None)
    return [
        says_guarded.requested(heal, batch, at, why, rows),
        says_guarded.diagnose(heal, batch, guarded.spans, setup, why),
    ]


def on_diagnosis(state: State, setup: Setup, value: bytes | None, at: str) -> list[Decision]:
    """The healer's answer to the request under way. Raises Refused, with the state unchanged."""
    found = decode(Found, value)
    repair = _repair(found, setup)
    heal = awaited(state, found.request_id)
    if heal is None:
        return []
    batch, state.core.heal = state.pending[heal.batch_id], None
    at = batch.row.timestamp if batch.lockstep else at
    guarding, guarded = setup.guarding, state.guarded
    if guarding is None or guarded is None or heal.base_version != state.core.active:
        state.count("answers_stale")  # another state is in force by now: the answer is not about that
        return settle(state, batch, "none")
    decisions, why = [], ""
    if found.promote and found.post_version is not None:
        why = _objection(state, guarding, found)
        if why:
            facts = {"verdict": found.verdict, "request_id": found.request_id}
            decisions.append(says_guarded.rejected(at, batch, found.post_version, why, **facts))
    answer = Answer(
        found.verdict, repair is not None and not why, found.n_blocks, found.active_fits, repair,
        found.post_version or "", _rests_until(guarded, guarding, found, state.core.batches) if why else 0,
    )  # fmt: skip
    since = first_batch(guarded, found.n_blocks) if found.since_batch_idx is None else found.since_batch_idx
    before = guarded.guard.state
    guard, action = on_answer(guarded.guard, answer, guarding.profile.deviation)
    keep(guarded, guard)
    if action is not None:
        decisions += _activate(state, setup, guarding, batch, action, before, at, found)
    if guard.active == 0 and guard.verdict in REFUSED:
        learning.open_(state, "verdict", since)
    did = action.reason if action is not None else "rejected" if why else "diagnosed"
    return decisions + settle(state, batch, did)


def _repair(found: Found, setup: Setup) -> Alignment | None:
    """What may be put in force. Raises Refused where the numbers are no alignment of this bundle."""
    if not found.promote or found.post_version is None or setup.guarding is None:
        return None
    d = setup.guarding.profile.d
    for name in ("shift", "scale"):
        if len(getattr(found, name)) != d:
            raise Refused(f"{len(getattr(found, name))} numbers, the bundle has {d} features", name)
    if found.order and sorted(found.order) != list(range(d)):
        raise Refused(f"does not hold each of 0 to {d - 1} once", "order")
    rate = setup.guarding.profile.fraud_rate if found.fraud_rate is None else found.fraud_rate
    return Alignment(found.shift, found.scale, rate, found.order)


def _rests_until(guarded: Guarded, guarding: Guarding, found: Found, now: int) -> int:
    """The batch from which a repair that is refused now may be tried again."""
    withdrawn = guarded.withdrawn
    since = withdrawn[found.verdict] if resting(withdrawn, found.verdict, now, guarding.cooldown) else now
    return since + guarding.cooldown


def _objection(state: State, guarding: Guarding, found: Found) -> str:
    """Why a repair is not put in force; empty: it is."""
    guarded = begun(state, guarding)
    if resting(guarded.withdrawn, found.verdict, state.core.batches, guarding.cooldown):
        since = guarded.withdrawn[found.verdict]
        return (
            f"labels took a repair of this kind ({found.verdict}) back at batch {since}; it is tried again from batch "
            f"{since + guarding.cooldown} (MONITOR_COOLDOWN {guarding.cooldown})"
        )
    before, after = found.flagged_before, found.flagged_after
    if before is None or after is None:
        return ""
    if not too_far(before, after, guarding.clean_flags, guarding.flag_factor, found.rows):
        return ""
    return (
        f"it would flag {after:.1%} of the transactions, {before:.1%} are flagged now and {guarding.clean_flags:.1%} "
        f"of clean ones: more than MONITOR_FLAG_FACTOR {guarding.flag_factor:g} away"
    )


def _activate(
    state: State, setup: Setup, guarding: Guarding, batch: Batch, action: Activate, before: Known, at: str,
    found: Found | None = None,
) -> list[Decision]:  # fmt: skip
    """Put a state in force. What was learned belongs to the state before: it goes with it."""
    previous, version = state.core.active, action.state.name
    state.core.active = version
    decisions = learning.moved(state, at, batch)
    if version == previous:
        return decisions
    decisions.append(says.active(version, previous, at, action.reason, batch.row.batch_id))
    what = says_guarded.undoes(
        before.alignment if version == FIRST_VERSION else action.state.alignment, setup, guarding
    )
    if action.reason == "drift-ended":
        return [*decisions, says_guarded.ended(at, batch, version, previous, what)]
    if action.reason == "withdrawn":
        why = f"{what} no longer explains the rows ({begun(state, guarding).guard.verdict})"
        return [*decisions, says_guarded.taken_back(at, batch, version, previous, "withdrawn", why)]
    facts: dict[str, Any] = {"verdict": action.state.verdict}
    if found is None:
        message = f"{version} activated again: {what} is back, no fit"
    else:
        message = f"{version} activated ({action.reason}), undoes {what}"
        if found.flagged_before is not None and found.flagged_after is not None:
            message += f"; flags {found.flagged_before:.1%} -> {found.flagged_after:.1%}"
        facts |= {
            "request_id": found.request_id, "since_batch_idx": found.since_batch_idx,
            "flagged_before": found.flagged_before, "flagged_after": found.flagged_after,
        }  # fmt: skip
    return [*decisions, says_guarded.activated(at, batch, version, previous, action.reason, message, **facts)]


def dropped(
    state: State, version: str, at: str, batch: Batch | None, reason: str, *, rests_until: int = 0
) -> list[Decision]:
    """A repair that is not to come back, or not before batch rests_until. Where it was in force, what was learned over
    it included, the frozen network takes its place; the event is the caller's."""
    guarded = state.guarded
    if guarded is None:
        return []
    in_force, previous = guarded.guard.state.name == version, state.core.active
    refused = next((k for k in guarded.guard.known if k.name == version), None)
    if rests_until and refused is not None:
        keep(guarded, hold(guarded.guard, msgspec.structs.replace(refused, rests_until=rests_until)))
    else:
        keep(guarded, forget(guarded.guard, version))
    if not in_force:
        return []
    state.core.active = guarded.guard.state.name
    name = None if batch is None else batch.row.batch_id
    return [*learning.moved(state, at, batch), says.active(state.core.active, previous, at, reason, name)]
