"""Labels as evidence about what was served: each version against the frozen network. No I/O.

A row counts once, when its label can be trusted to be no choice of the model's: docs/protocol.md, "Deciding, policy
guarded", 5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor import guarded, learning, says_guarded
from monitor.evidence import Tally, counted, log_evidence
from monitor.rows import replaced
from monitor.setup import Decision, Guarding
from monitor.state import NO_LABEL, Batch, State

Bits = npt.NDArray[np.bool_]


def on_labels(state: State, guarding: Guarding, batch: Batch, at: str) -> list[Decision]:
    """Labels have come for a batch. Takes its version back where the frozen network has been cheaper beyond doubt."""
    version = batch.row.adapter_version
    names = _versions(state)
    if version not in names:
        return []
    labels = np.frombuffer(batch.labels, np.uint8)
    before = np.frombuffer(batch.counted or bytes(len(labels)), np.uint8)
    usable = np.ones(len(labels), bool) if batch.complete else _audited(batch, len(labels))
    new = usable & (labels != NO_LABEL) & (before == 0)
    if not new.any():
        return []
    batch.counted = (before | new).astype(np.uint8).tobytes()
    state.put(batch)
    served, frozen = (_flags(p, guarding.cost_cut)[new] for p in (batch.probability, batch.shadow))
    tallies = state.learning.tallies
    tally = counted(tallies.get(version, Tally()), frozen, served, labels[new])
    state.learning.tallies = {v: t for v, t in tallies.items() if v in names} | {version: tally}
    evidence = log_evidence(tally, guarding.profile.costs)
    if evidence < guarding.log_evidence:
        return []
    del state.learning.tallies[version]
    return _taken_back(state, guarding, batch, version, tally, evidence, at)


def _taken_back(
    state: State, guarding: Guarding, batch: Batch, version: str, tally: Tally, evidence: float, at: str
) -> list[Decision]:
    """A learned version goes back to what it was learned over; a repair to the frozen network, and out of memory."""
    standing, active = state.guarded, state.core.active
    if standing is None:
        return []
    why = (
        f"on labelled rows the frozen network costs less: where they differ it is right on "
        f"{tally.won_fraud + tally.won_normal} rows, wrong on {tally.lost_fraud + tally.lost_normal}, "
        f"ln E {evidence:.1f}"
    )
    if version == state.learning.overlay:
        kind, decisions = learning.KIND, learning.back(state, at, batch, "labels")
    else:
        kind = next(k.verdict for k in standing.guard.known if k.name == version)
        until = state.core.batches + guarding.cooldown
        decisions = guarded.dropped(state, version, at, batch, "labels", rests_until=until)
    standing.withdrawn[kind] = state.core.batches
    facts = {"evidence": evidence, "verdict": kind}
    if state.core.active == active:
        return [*decisions, says_guarded.rejected(at, batch, version, f"it is not used again: {why}", **facts)]
    batch.row = replaced(batch, rolled_back=True, action="rollback", state="ROLLED_BACK")
    return [*decisions, says_guarded.taken_back(at, batch, state.core.active, active, "labels", why, **facts)]


def _versions(state: State) -> set[str]:
    """That may be in force, and are not the frozen network."""
    if state.guarded is None:
        return set()
    learned = {state.learning.overlay} if state.learning.overlay else set()
    return {k.name for k in state.guarded.guard.known[1:] if not k.rests_until} | learned


def _audited(batch: Batch, rows: int) -> Bits:
    return np.asarray(np.frombuffer(batch.audited or bytes(rows), np.uint8) == 1)


def _flags(probability: bytes, cut: float) -> Bits:
    return np.asarray(np.frombuffer(probability, "<f4").astype(np.float64) > cut)
