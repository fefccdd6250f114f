"""The monitor's decisions as records: events a person can read, control settings, heal requests."""

from __future__ import annotations

from typing import Any

from monitor.fidi import top_features
from monitor.health import Decay, Entry
from monitor.setup import Decision, Setup
from monitor.state import Batch, Heal, State
from shared.records import Control, Event, EventKind, HealRequest, OffsetRange, Source

SERVICE = "monitor"


def short(value: float | None, digits: int = 2) -> str:
    """.44 for 0.44, and a dash for nothing."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def event(kind: EventKind, at: str, message: str, **facts: Any) -> Decision:
    """An events record of the monitor."""
    return Decision("events", SERVICE, Event(at=at, kind=kind, message=message, service=SERVICE, facts=facts))


def of_batch(batch: Batch) -> dict[str, Any]:
    """The facts that name a batch."""
    return {"batch_id": batch.row.batch_id, "batch_idx": batch.row.batch_idx}


def drift(kind: EventKind, at: str, batch: Batch, z: float, state: State, setup: Setup) -> Decision:
    """FIDI crossed its threshold at this batch."""
    calibration, threshold, since = setup.calibration, setup.thresholds.fidi_threshold, state.core.drifting_since
    if kind == "drift-detected":
        message = f"{calibration.name} drifts: z {z:.2f} over {threshold:.2f} since batch {since}"
    else:
        message = f"{calibration.name} is back: z {z:.2f}, had drifted since batch {since}"
    return event(
        kind, at, message, feature=calibration.name, z_score=z, threshold=threshold, since=since,
        top=top_features(state.window, calibration), **of_batch(batch),
    )  # fmt: skip


def active(version: str, previous: str, at: str, reason: str, batch_id: str | None = None) -> Decision:
    """The control record that scorers swap by."""
    record = Control(
        setting="active", at=at, by=SERVICE, reason=reason, version=version, previous=previous, batch_id=batch_id
    )
    return Decision("control", "active", record)


def heal_request(heal: Heal, batch: Batch, setup: Setup, reason: str) -> Decision:
    """Names the batch's transactions and the labels records that were joined, in the order they were."""
    record = HealRequest(
        request_id=heal.request_id,
        policy="reference",
        reason=reason,
        base_version=heal.base_version,
        bundle=setup.bundle,
        batch_id=batch.row.batch_id,
        at=batch.row.timestamp,
        transactions=_ranges([batch.source]),
        labels=_ranges(batch.joined),
        parameters={"heal_steps": setup.thresholds.heal_steps, "heal_lr": setup.thresholds.heal_lr},
    )
    return Decision("heal-requests", heal.request_id, record)


def heal_requested(heal: Heal, batch: Batch, at: str, reason: str) -> Decision:
    """The event beside the request."""
    row = batch.row
    return event(
        "heal-requested", at, f"batch {row.batch_idx}: heal asked, {reason}", request_id=heal.request_id,
        base_version=heal.base_version, reason=reason, conflicts=row.n_conflicts, z_score=row.z_score,
        labelled=row.labelled, rows=row.rows, **of_batch(batch),
    )  # fmt: skip


def _ranges(sources: list[Source]) -> list[OffsetRange]:
    return [OffsetRange(topic=s.topic, partition=s.partition, start=s.offset, end=s.offset + 1) for s in sources]


def rolled_back(at: str, batch: Batch, previous: str, entry: Entry, why: Decay) -> Decision:
    """The health window asked for the best post-heal entry."""
    mean, base = (why.mean_f1, why.baseline.f1) if why.what == "F1" else (why.mean_accuracy, why.baseline.accuracy)
    return event(
        "rolled-back", at,
        f"rolled back {previous} -> {entry.version} (F1 {short(entry.f1, 3)}): mean {why.what} {short(mean)} fell more"
        f" than {short(why.drop)} below {short(base)}",
        from_version=previous, to_version=entry.version, f1=entry.f1, accuracy=entry.accuracy,
        to_batch_idx=entry.batch_idx, mean_f1=why.mean_f1, mean_accuracy=why.mean_accuracy,
        baseline_f1=why.baseline.f1, baseline_accuracy=why.baseline.accuracy, **of_batch(batch),
    )  # fmt: skip


def thinning(at: str, before: float, now: float, lag: int, seed: int) -> list[Decision]:
    """The share of the batches that is read changed; nothing where it did not."""
    if now == before:
        return []
    message = f"reads {_share(now)} of the batches from here on: {lag:,} predictions behind"
    return [event("thinning-changed", at, message, share=now, previous=before, lag=lag, seed=seed)]


def _share(share: float) -> str:
    return "all" if share >= 1 else f"1/{round(1 / share)}"


def told(decisions: list[Decision]) -> list[tuple[str, str]]:
    """(kind, message) of the events among the decisions."""
    return [(d.record.kind, d.record.message) for d in decisions if isinstance(d.record, Event)]
