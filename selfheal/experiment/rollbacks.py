"""What each rollback restored, checked against what was then served."""

from __future__ import annotations

import msgspec

from monitor.export import Run


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """batch_idx: where it happened. restored_batch_idx: the batch that the restored entry was fitted to. f1: of that
    entry on that batch. served_next: version that scored the following batch, None after the last. kept: the
    row's next_version and served_next are the version that the event names."""

    batch_idx: int
    from_version: str
    to_version: str
    restored_batch_idx: int
    f1: float
    served_next: str | None
    kept: bool


def rollbacks(run: Run) -> list[Rollback]:
    """Of every rolled-back event, in order."""
    rows = {row.batch_id: row for row in run.rows}
    after = {row.batch_idx - 1: row.adapter_version for row in run.rows}
    found = []
    for event in run.of_kind("rolled-back"):
        facts = event.facts
        row = rows[facts["batch_id"]]
        served = after.get(row.batch_idx)
        found.append(
            Rollback(
                batch_idx=row.batch_idx,
                from_version=facts["from_version"],
                to_version=facts["to_version"],
                restored_batch_idx=facts["to_batch_idx"],
                f1=facts["f1"],
                served_next=served,
                kept=row.next_version == facts["to_version"] and served in (None, facts["to_version"]),
            )
        )
    return found
