"""bundle.json: what a model is, beside its weights."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from shared.table.schema import Table

SCHEMA = 1
HIDDEN_MAX = 256  # an adapter with its optimiser then takes 1.6 MB at most (MAX_ADAPTER_BYTES)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The symbolic rule: fraud where feature < threshold (op "<") or > threshold (op ">")."""

    feature: str
    op: Literal["<", ">"]
    threshold: float


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """flag: a transaction is flagged above this probability. conflict: the rule says fraud, the model says
    less than this."""

    flag: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    conflict: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.30


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one false alarm and one missed fraud, in the operator's unit. Where a missed fraud costs its own amount
    (table.amount), missed_fraud is the mean amount of the training rows' frauds."""

    false_alarm: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    missed_fraud: Annotated[float, msgspec.Meta(gt=0)] = 5.0


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """At the flag threshold, each in 0..1."""

    accuracy: float
    precision: float
    recall: float
    f1: float


class FeatureStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of one feature over the training rows. quantiles: at 0, 1%, .., 99%, 100% (101 numbers). affine: a feed could
    shift or scale it, and that could be told: not a category, nor a column of two values."""

    mean: float
    deviation: float
    quantiles: list[float]
    affine: bool = True


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """bundle.json. alerts_per_1000: the operator's alert budget, where the flag threshold had to keep it. table: the
    columns that the features are made of, None where the features themselves are what is fed."""

    schema: int
    features: Annotated[list[str], msgspec.Meta(min_length=1, max_length=10_000)]
    hidden: Annotated[int, msgspec.Meta(ge=1, le=HIDDEN_MAX)]
    rule: Rule | None
    watched: str  # the feature FIDI watches
    thresholds: Thresholds
    costs: Costs
    fraud_rate: Annotated[float, msgspec.Meta(ge=0, le=1)]  # of the training rows
    clean: Scores  # on held-out rows of the training distribution
    statistics: dict[str, FeatureStatistics]
    training: dict[str, float | int | str]  # seed, epochs, rows, learning rate: how to make it again
    weights_sha256: str
    reference_sha256: str
    alerts_per_1000: Annotated[float, msgspec.Meta(gt=0, le=1_000)] | None = None
    table: Table | None = None
