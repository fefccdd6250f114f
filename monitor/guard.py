"""When to ask for a diagnosis, activate, switch to a remembered state, take back: a fold over blocks. Pure.

The guard decides; it does not fit. A fit is the healer's answer to a request. It keeps sums of the newest blocks under
every state it knows, never rows.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from monitor.detect import WINDOWS, Sums, worst_z
from shared.alignment import Alignment, Floats
from shared.profile import Profile
from shared.records import FIRST_VERSION

BLOCKS = 10  # the window a diagnosis reads, at most
MEMORY = 5  # healed states remembered
BLOCK_REJECTS = 3.3  # z of one block that a state does not explain
SWITCH_GAIN = 1.5  # z by which another known state must explain it better
RESIDUAL = 3.2  # z under the active state from which it is fitted again
SUSPICION = 5  # batches for which an alarm stays open
FAILURES = 2  # refits that fail in a row before the active state is withdrawn
PATIENCE = 4  # refusals in a row after which the guard asks every second block, twice as many: every third, ..
REST = 4  # blocks between two requests, at most
GROWN = (5, 10)  # blocks of one law at which a young fit is made again


class Known(msgspec.Struct, frozen=True):
    """A state that may be active: the frozen network, or a repair. name: the adapter's version. verdict: what it
    undoes. rests_until: of a repair that labels or a bound refused, the batch from which it may be tried again; 0: it
    may be put in force."""

    name: str
    alignment: Alignment
    verdict: str
    rests_until: int = 0


class Guard(msgspec.Struct, frozen=True):
    """known: the frozen network first, then repairs, oldest first. active: index into known. blocks: per newest block,
    oldest first, its sums under each known state (None: that state is younger than the block). count: blocks so far.
    alarm: block of the newest alarm, 0: none. fitted: blocks behind the active fit. failures: refits in a row.
    asked: block of the newest request. refusals: in a row, with no repair in force. z: newest."""

    known: tuple[Known, ...]
    active: int = 0
    blocks: tuple[tuple[Sums | None, ...], ...] = ()
    count: int = 0
    alarm: int = 0
    fitted: int = 0
    failures: int = 0
    asked: int = 0
    refusals: int = 0
    verdict: str = "none"
    z: float = 0.0

    @property
    def state(self) -> Known:
        return self.known[self.active]

    @property
    def alarmed(self) -> bool:
        """The frozen network is in force, and not long ago the stream left the reference."""
        return self.active == 0 and bool(self.alarm) and self.count - self.alarm < SUSPICION


class Activate(msgspec.Struct, frozen=True):
    """Put a known state in force. reason: for people."""

    state: Known
    reason: Literal["heal", "refit", "switch", "drift-ended", "withdrawn"]


class Ask(msgspec.Struct, frozen=True):
    """Ask the healer about the newest blocks. reason: for people."""

    blocks: int
    reason: Literal["alarm", "residual", "more-rows"]


class Answer(msgspec.Struct, frozen=True):
    """What the guard reads of a diagnosis. blocks: how many of the newest blocks it is about; 0: too few to say.
    version: the repair's name, where there is one. rests_until: as of Known, where a repair was found and refused."""

    verdict: str
    promote: bool
    blocks: int
    active_fits: bool
    alignment: Alignment | None = None
    version: str = ""
    rests_until: int = 0


def begin(frozen: Alignment) -> Guard:
    """Before the first block."""
    return Guard(known=(Known(FIRST_VERSION, frozen, "none"),))


def on_block(
    guard: Guard, sums: tuple[Sums, ...], profile: Profile, h: float, *, may_ask: bool = True
) -> tuple[Guard, Activate | Ask | None]:
    """sums: of the new block under each of guard.known, in that order. h: detect.threshold. may_ask: no request is
    under way."""
    blocks = (*guard.blocks, sums)[-BLOCKS:]
    guard = msgspec.structs.replace(guard, blocks=blocks, count=guard.count + 1)
    if (other := _better_known(guard, profile)) is not None:
        guard = msgspec.structs.replace(
            guard, active=other, failures=0, fitted=BLOCKS, alarm=0, blocks=blocks[-1:],
            verdict=guard.known[other].verdict, z=_z(guard, other, profile, 1),
        )  # fmt: skip
        return guard, Activate(guard.state, "switch" if other else "drift-ended")
    if guard.active == 0:
        z = _z(guard, 0, profile, WINDOWS[-1])
        alarm = guard.count if z > h else guard.alarm
        guard = msgspec.structs.replace(guard, z=z, alarm=alarm)
        if not guard.alarmed:
            return msgspec.structs.replace(guard, verdict="none", refusals=0), None
        resting = guard.count - guard.asked <= min(guard.refusals // PATIENCE, REST) or _refused(guard, profile, h)
        return _ask(guard, "alarm") if may_ask and not resting and len(blocks) >= 2 else (guard, None)
    z = _z(guard, guard.active, profile, WINDOWS[-1])
    guard = msgspec.structs.replace(guard, z=z)
    if not may_ask:
        return guard, None
    if z > RESIDUAL:
        return _ask(guard, "residual")
    if any(len(blocks) >= grown > guard.fitted for grown in GROWN):
        return _ask(guard, "more-rows")
    return guard, None


def on_answer(guard: Guard, answer: Answer, deviation: Floats) -> tuple[Guard, Activate | None]:
    """To a request that was made under the state still in force. deviation (d,): of the reference, by which states
    are told apart."""
    if not answer.blocks:
        return guard, None
    newest = answer.blocks + guard.count - guard.asked  # those that came while the healer was at work
    guard = msgspec.structs.replace(guard, blocks=guard.blocks[-newest:], fitted=answer.blocks)
    if answer.promote and answer.alignment is not None:
        return _activated(guard, Known(answer.version, answer.alignment, answer.verdict), deviation)
    if guard.active == 0:
        if answer.rests_until and answer.alignment is not None:
            guard = hold(guard, Known(answer.version, answer.alignment, answer.verdict, answer.rests_until))
        return msgspec.structs.replace(guard, verdict=answer.verdict, refusals=guard.refusals + 1), None
    if answer.verdict in ("none", "harmless"):
        return _frozen(guard, answer.verdict, "drift-ended")
    if answer.active_fits:
        return msgspec.structs.replace(guard, failures=0), None
    wrong, guard = guard.state.name, msgspec.structs.replace(guard, failures=guard.failures + 1)
    if guard.failures < FAILURES:
        return guard, None
    guard, action = _frozen(guard, answer.verdict, "withdrawn")
    return forget(guard, wrong), action  # one block that it explains by chance must not bring it back


def hold(guard: Guard, refused: Known) -> Guard:
    """With a repair that rests: while it explains the rows there is nothing to ask, as the answer could not be used.
    One is held at a time. Where it was in force, the frozen network is again."""
    guard = forget(guard, *(s.name for s in guard.known[1:] if s.rests_until))
    at = next((k for k, s in enumerate(guard.known) if s.name == refused.name), None)
    if at is None:
        blocks = tuple((*b, *(None,) * (len(guard.known) - len(b)), None) for b in guard.blocks)
        return msgspec.structs.replace(guard, known=(*guard.known, refused), blocks=blocks)
    known = (*guard.known[:at], refused, *guard.known[at + 1 :])
    guard = msgspec.structs.replace(guard, known=known)
    return guard if guard.active != at else _open(msgspec.structs.replace(guard, active=0))


def rested(guard: Guard, now: int) -> Guard:
    """Without what has rested long enough, batch now. The next request finds out whether it still holds."""
    return forget(guard, *(s.name for s in guard.known[1:] if 0 < s.rests_until <= now))


def forget(guard: Guard, *names: str) -> Guard:
    """Without states that turned out to be wrong, or cannot be loaded. Where one was in force, the frozen network is
    again, and what happened is open."""
    where = [k for k, s in enumerate(guard.known) if k and s.name in names]
    if not where:
        return guard
    kept = [k for k in range(len(guard.known)) if k not in where]
    blocks = tuple(tuple(b[k] for k in kept if k < len(b)) for b in guard.blocks)
    known = tuple(guard.known[k] for k in kept)
    if guard.active not in where:
        return msgspec.structs.replace(guard, known=known, blocks=blocks, active=kept.index(guard.active))
    return _open(msgspec.structs.replace(guard, known=known, blocks=blocks, active=0))


def _open(guard: Guard) -> Guard:
    return msgspec.structs.replace(guard, failures=0, verdict="unexplained", alarm=guard.count)


def _refused(guard: Guard, profile: Profile, h: float) -> bool:
    """A repair that rests explains the rows that came since."""
    return any(s.rests_until and _z(guard, k, profile, WINDOWS[-1]) <= h for k, s in enumerate(guard.known))


def _ask(guard: Guard, reason: Literal["alarm", "residual", "more-rows"]) -> tuple[Guard, Ask]:
    return msgspec.structs.replace(guard, asked=guard.count), Ask(len(guard.blocks), reason)


def _z(guard: Guard, state: int, profile: Profile, longest: int) -> float:
    """Worst z of the newest blocks that have sums under the state."""
    found: list[Sums] = []
    for block in reversed(guard.blocks):
        sums = block[state] if state < len(block) else None
        if sums is None:
            break
        found.append(sums)
    return worst_z(profile, found[::-1], guard.known[state].alignment.fraud_rate, longest=longest)


def _better_known(guard: Guard, profile: Profile) -> int | None:
    """Where the newest block rejects the active state: another known one that explains it, and clearly better."""
    if len(guard.known) == 1:
        return None
    now = _z(guard, guard.active, profile, 1)
    if now < BLOCK_REJECTS:
        return None
    may = [k for k, s in enumerate(guard.known) if k != guard.active and not s.rests_until]
    z, best = min(((_z(guard, k, profile, 1), k) for k in may), default=(math.inf, 0))
    return best if z < BLOCK_REJECTS and z < now - SWITCH_GAIN else None


def _frozen(guard: Guard, verdict: str, reason: Literal["drift-ended", "withdrawn"]) -> tuple[Guard, Activate]:
    alarm = guard.count if reason == "withdrawn" else 0
    guard = msgspec.structs.replace(guard, active=0, failures=0, verdict=verdict, alarm=alarm)
    return guard, Activate(guard.state, reason)


def _activated(guard: Guard, new: Known, deviation: Floats) -> tuple[Guard, Activate]:
    """A refinement takes the active state's place; a new state is remembered beside it, in place of any near it and of
    the oldest beyond MEMORY. Blocks from before have no sums under it."""
    refines = guard.active > 0 and new.alignment.near(guard.state.alignment, deviation)
    drop = {k for k, s in enumerate(guard.known) if k and new.alignment.near(s.alignment, deviation)}
    drop |= {guard.active} if refines else set()
    kept = [k for k in range(len(guard.known)) if k not in drop]
    kept = [0, *kept[1:][-(MEMORY - 1) :]]
    blocks = tuple((*(b[k] if k < len(b) else None for k in kept), None) for b in guard.blocks)
    guard = msgspec.structs.replace(
        guard, known=(*(guard.known[k] for k in kept), new), active=len(kept), blocks=blocks, failures=0,
        verdict=new.verdict, alarm=0, refusals=0,
    )  # fmt: skip
    return guard, Activate(new, "refit" if refines else "heal")
