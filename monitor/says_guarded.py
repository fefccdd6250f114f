"""The decisions of policy guarded as records: events a person can read, requests for a diagnosis or a lesson."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from monitor.parts import Complete, Span, Trial
from monitor.says import SERVICE, event, of_batch, short
from monitor.setup import Decision, Guarding, Setup
from monitor.state import Batch, Heal
from shared.alignment import Alignment
from shared.records import FIRST_VERSION, Control, HealRequest, OffsetRange, Source

NAMED = 3  # features told one by one


def undoes(alignment: Alignment, setup: Setup, guarding: Guarding) -> str:
    """What a repair undoes: "V14 x10", "amount -2.2 and fraud rate 15% -> 40%"."""
    parts = [
        _moved(setup.calibration.features[f], alignment.shift[f], alignment.scale[f])
        for f in alignment.moved[:NAMED]
    ]  # fmt: skip
    if more := len(alignment.moved) - NAMED:
        parts += [f"{more} more features"] if more > 0 else []
    if alignment.order:
        parts.append(f"{sum(i != j for i, j in enumerate(alignment.order))} columns in another order")
    if alignment.fraud_rate != guarding.profile.fraud_rate:
        parts.append(f"fraud rate {guarding.profile.fraud_rate:.0%} -> {alignment.fraud_rate:.0%}")
    return " and ".join(parts) or "nothing"


def _moved(name: str, shift: float, scale: float) -> str:
    times = f" x{scale:.4g}" if scale != 1 else ""
    return f"{name}{times}" + (f" {shift:+.3g}" if shift else "")


def alarm(at: str, batch: Batch, column: int, z: float, first: int, setup: Setup, guarding: Guarding) -> Decision:
    """The stream left the reference. column: the worst, d for the score. first: batch_idx of the window's oldest."""
    features = setup.calibration.features
    name = features[column] if column < len(features) else "the score"
    message = (
        f"{name} no longer follows the reference: z {z:.1f} over {guarding.h:.1f} by batch {batch.row.batch_idx} "
        f"(about one false alarm in {guarding.quiet_batches:,} quiet batches)"
    )
    return event(
        "alarm", at, message, feature=name, z_score=z, threshold=guarding.h, quiet_batches=guarding.quiet_batches,
        window_from=first, **of_batch(batch),
    )  # fmt: skip


def diagnose(heal: Heal, batch: Batch, spans: Sequence[Span], setup: Setup, reason: str) -> Decision:
    """Names every batch of the newest blocks."""
    record = HealRequest(
        request_id=heal.request_id, policy="guarded", reason=reason, base_version=heal.base_version,
        bundle=setup.bundle, batch_id=batch.row.batch_id, at=batch.row.timestamp, purpose="diagnose",
        transactions=_each(source for span in spans for source in span.sources),
        blocks=[len(span.sources) for span in spans], parameters={"first_batch_idx": spans[0].first},
    )  # fmt: skip
    return Decision("heal-requests", heal.request_id, record)


def learn(heal: Heal, batch: Batch, lessons: Sequence[Complete], fresh: int, active: str, setup: Setup) -> Decision:
    """lessons: replayed batches, then the fresh ones. active: the version that is served."""
    number = active.removeprefix("v")
    record = HealRequest(
        request_id=heal.request_id, policy="guarded", reason=f"labels of {fresh} more batches",
        base_version=heal.base_version, bundle=setup.bundle, batch_id=batch.row.batch_id, at=batch.row.timestamp,
        purpose="learn", fresh=fresh, transactions=_each(lesson.source for lesson in lessons),
        labels=_each(source for lesson in lessons for source in lesson.labels),
        parameters={"active_version_number": int(number)} if number.isdecimal() else {},
    )  # fmt: skip
    return Decision("heal-requests", heal.request_id, record)


def requested(heal: Heal, batch: Batch, at: str, why: str, rows: int) -> Decision:
    """The event beside either request."""
    what = "diagnosis" if heal.purpose == "diagnose" else "learning"
    return event(
        "heal-requested", at, f"batch {batch.row.batch_idx}: {what} asked of {rows:,} rows, {why}",
        request_id=heal.request_id, base_version=heal.base_version, reason=why, purpose=heal.purpose, rows=rows,
        **of_batch(batch),
    )  # fmt: skip


def activated(at: str, batch: Batch, version: str, previous: str, reason: str, message: str, **facts: Any) -> Decision:
    return event(
        "adapter-activated", at, message, version=version, previous=previous, reason=reason, **facts, **of_batch(batch)
    )


def ended(at: str, batch: Batch, version: str, previous: str, what: str) -> Decision:
    """The stream is back to what an earlier state reads."""
    message = f"drift has ended ({what}): back from {previous} to {version}"
    return event(
        "drift-ended", at, message, version=version, previous=previous, reason="drift-ended", **of_batch(batch)
    )


def taken_back(at: str, batch: Batch, version: str, previous: str, reason: str, why: str, **facts: Any) -> Decision:
    """reason: withdrawn (it no longer explains the rows), labels, or refused (a scorer cannot load it)."""
    return event(
        "rolled-back", at, f"rolled back {previous} -> {version}: {why}", from_version=previous, to_version=version,
        reason=reason, **facts, **of_batch(batch),
    )  # fmt: skip


def rejected(at: str, batch: Batch, version: str, reason: str, **facts: Any) -> Decision:
    """The monitor does not put it in force."""
    return event(
        "adapter-rejected", at, f"{version} is not put in force: {reason}", version=version, reason=reason, **facts,
        **of_batch(batch),
    )  # fmt: skip


def promoted(at: str, batch: Batch, trial: Trial, previous: str, evidence: float) -> Decision:
    """A learned version won its trial. evidence: ln E."""
    won = trial.tally.won_fraud + trial.tally.won_normal
    message = (
        f"{trial.version} activated, learned from labels: against {previous} its line is right on {won} rows and wrong "
        f"on {trial.tally.rows - won} of {trial.rows:,} it had not seen, at the costs ln E {short(evidence, 1)}"
    )
    return activated(
        at, batch, trial.version, previous, "learned", message, evidence=evidence, rows=trial.rows,
        log_loss=trial.log_loss, log_loss_previous=trial.log_loss_active,
    )  # fmt: skip


def candidate(version: str | None, at: str, reason: str, batch_id: str | None) -> Decision:
    """The version that scorers score beside the active one; None: no such."""
    record = Control(setting="candidate", at=at, by=SERVICE, reason=reason, version=version, batch_id=batch_id)
    return Decision("control", "candidate", record)


def why_asked(reason: Literal["alarm", "residual", "more-rows"], base: str) -> str:
    """A guard's reason for people."""
    if reason == "alarm":
        return "the stream left the reference"
    if reason == "residual":
        return f"{base} does not quite explain the newest rows"
    return f"{base} was fitted to few rows" if base != FIRST_VERSION else "more rows have come"


def _each(sources: Iterable[Source]) -> list[OffsetRange]:
    return [OffsetRange(topic=s.topic, partition=s.partition, start=s.offset, end=s.offset + 1) for s in sources]
