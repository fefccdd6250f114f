"""When FIDI's crossings of its threshold are told. Pure."""

from __future__ import annotations

from monitor import says
from monitor.blocks import ROWS
from monitor.setup import Decision, Setup
from monitor.state import Batch, State
from shared.records import EventKind


def told(state: State, setup: Setup, batch: Batch, z: float | None, at: str) -> list[Decision]:
    """drift-detected or drift-ended once the newest batches, of ROWS rows together or more, agree on it: a batch of
    that size tells it at once, as published. The means of one-row batches cross and come back all the time."""
    core = state.core
    if z is None or batch.drifting == (core.drifting_since is not None):
        core.crossed, core.crossed_rows = None, 0
        return []
    core.crossed = core.crossed or core.batches
    core.crossed_rows += batch.row.rows
    if core.crossed_rows < ROWS:
        return []
    core.drifting_since = core.drifting_since or core.crossed
    kind: EventKind = "drift-detected" if batch.drifting else "drift-ended"
    decision = says.drift(kind, at, batch, z, state, setup)
    core.drifting_since = core.drifting_since if batch.drifting else None
    core.crossed, core.crossed_rows = None, 0
    return [decision]
