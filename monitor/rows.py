"""A batch's metrics row as it fills: when the prediction comes, and when the labels complete it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np

from monitor.setup import Setup
from monitor.state import NO_LABEL, Batch, Row
from shared.errors import Refused
from shared.records import MAX_ROWS, Bit, Count, Id, Record, Source
from shared.scores import expected_cost, scores

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Judged(Record, frozen=True):
    """What is read of a predictions record: the fields of records.Prediction that are judged, and no others."""

    batch_id: str
    transaction_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]
    probability: list[Probability]
    shadow_probability: list[Probability]
    adapter_version: Id
    bundle: str
    source: Source
    created_at: str
    flag: list[Bit]
    conflicts: Count
    feature_sums: list[float]
    candidate_probability: list[Probability] | None = None


def check_prediction(prediction: Judged, setup: Setup) -> None:
    """What the type cannot say. Raises Refused."""
    if prediction.bundle != setup.bundle:
        raise Refused(f"made by bundle {prediction.bundle[:12]}, this monitor judges {setup.bundle[:12]}", "bundle")
    rows, d = len(prediction.transaction_ids), len(setup.calibration.features)
    for name in ("probability", "shadow_probability", "flag", "candidate_probability"):
        given = getattr(prediction, name)
        if given is not None and len(given) != rows:
            raise Refused(f"{len(given)} numbers for {rows} transaction ids", name)
    if len(prediction.feature_sums) != d:
        raise Refused(f"{len(prediction.feature_sums)} sums, the bundle has {d} features", "feature_sums")


def first_row(
    prediction: Judged, setup: Setup, *, batch_idx: int, z: float | None, drifting: bool, active: str, share: float
) -> Row:
    """Everything but the scores."""
    rows = len(prediction.transaction_ids)
    return Row(
        batch_idx=batch_idx,
        batch_id=prediction.batch_id,
        timestamp=prediction.created_at,
        rows=rows,
        z_score=z,
        n_conflicts=prediction.conflicts,
        accuracy_baseline=setup.clean.accuracy,
        precision_baseline=setup.clean.precision,
        recall_baseline=setup.clean.recall,
        f1_baseline=setup.clean.f1,
        state="DRIFTING" if drifting else "HEALTHY",
        flagged_share=sum(prediction.flag) / rows,
        adapter_version=prediction.adapter_version,
        next_version=active,
        thinning=share,
    )


def scored(batch: Batch, setup: Setup) -> Row:
    """The row of a complete batch with its scores. The lift after a heal is that of the heal where there was one."""
    labels = np.frombuffer(batch.labels, np.uint8)
    served = np.frombuffer(batch.probability, "<f4")
    frozen = np.frombuffer(batch.shadow, "<f4")
    healed, shadow = scores(served, labels, setup.flag), scores(frozen, labels, setup.flag)
    lift = healed.accuracy - shadow.accuracy
    after = batch.row.accuracy_post_heal
    return msgspec.structs.replace(
        batch.row,
        accuracy_shadow=shadow.accuracy,
        precision_shadow=shadow.precision,
        recall_shadow=shadow.recall,
        f1_shadow=shadow.f1,
        accuracy_healed=healed.accuracy,
        precision_healed=healed.precision,
        recall_healed=healed.recall,
        f1_healed=healed.f1,
        acc_lift=lift,
        f1_lift=healed.f1 - shadow.f1,
        acc_lift_post_heal=lift if after is None else after - shadow.accuracy,
        labelled=len(labels),
        cost_healed=expected_cost(served, labels, setup.costs, setup.cut),
        cost_shadow=expected_cost(frozen, labels, setup.costs, setup.cut),
    )


def labelled(batch: Batch) -> int:
    """Transactions of the batch that have a label."""
    return len(batch.labels) - batch.labels.count(NO_LABEL)


def replaced(batch: Batch, **changes: Any) -> Row:
    """The batch's row with some columns changed."""
    return msgspec.structs.replace(batch.row, **changes)
