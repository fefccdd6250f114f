"""The end of a request: whose outcome it was, and the row of the batch that asked."""

from __future__ import annotations

from typing import Literal

from monitor.rows import replaced
from monitor.setup import Decision
from monitor.state import Batch, Heal, State

NOTHING = ("none", "harmless")  # verdicts under which a stream counts as healthy


def awaited(state: State, request_id: str) -> Heal | None:
    """The request under way if the outcome is its own: one given up, or asked by a person, is not adopted."""
    if state.core.heal is not None and state.core.heal.request_id == request_id:
        return state.core.heal
    state.count("late_outcomes")
    return None


def shown(state: State, batch: Batch) -> Literal["HEALTHY", "DRIFTING"]:
    """Of the stream at this batch: by the guard where there is one, else by FIDI."""
    if state.guarded is None:
        return "DRIFTING" if batch.drifting else "HEALTHY"
    guard = state.guarded.guard
    return "DRIFTING" if guard.alarmed or guard.verdict not in NOTHING else "HEALTHY"


def settle(state: State, batch: Batch, action: str) -> list[Decision]:
    """The request of this batch is over; the batch is done unless labels are still to come."""
    look = "ROLLED_BACK" if batch.row.rolled_back else shown(state, batch)
    batch.row = replaced(batch, state=look, action=action, settled=True, next_version=state.core.active)
    if state.guarded is not None:
        batch.row = replaced(batch, verdict=state.guarded.guard.verdict)
    state.put(batch)
    if batch.complete:
        state.retire(batch.row.batch_id)
    return [Decision("metrics", batch.row.batch_id, batch.row)]
