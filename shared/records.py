"""Every record on every topic: what it holds, how it is written, how it is checked when read.

Read with msgspec, which names the field at fault; written with orjson, which takes NumPy arrays as they are.
Readers ignore fields they do not know, so that old and new versions run side by side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import orjson

from shared.errors import Refused

MAX_ROWS = 1_000
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Bit = Annotated[int, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
State = Literal["HEALTHY", "DRIFTING", "HEALING", "ROLLED_BACK"]
Policy = Literal["reference", "guarded"]
FIRST_VERSION = "v1"  # the bundle's own adapter, the identity; known to all, published by nobody


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all: frozen, keyword only, unknown fields ignored."""


class Source(Record, frozen=True, kw_only=True):
    """Where a batch stood when it was read: topic, partition, offset."""

    topic: str
    partition: Count
    offset: Count


class OffsetRange(Record, frozen=True, kw_only=True):
    """Records [start, end) of one partition; offsets have holes, so end - start is no count."""

    topic: str
    partition: Count
    start: Count
    end: Count


class Transactions(Record, frozen=True, kw_only=True):
    """A batch of 1..1,000 transactions. features: one row of finite numbers each, in the bundle's order and
    units. amounts: money, same order. created_at: RFC 3339, the stream's own time."""

    batch_id: Id
    transaction_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]
    features: Annotated[list[list[float]], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]
    created_at: str
    amounts: list[float] | None = None


class Labels(Record, frozen=True, kw_only=True):
    """What the transactions turned out to be: 1 fraud, 0 not. May be late, partial, in any order."""

    batch_id: Id
    transaction_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]
    labels: Annotated[list[Bit], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]
    kind: Literal["delayed", "audit"] = "delayed"


class Prediction(Record, frozen=True, kw_only=True):
    """What the scorer says of one batch; arrays follow transaction_ids. probability: active adapter; shadow:
    the frozen network; candidate: the adapter on trial, where there is one. rule and flag are 0/1.
    feature_sums, feature_squares: per feature over the batch's rows, enough for means and deviations."""

    batch_id: str
    transaction_ids: list[str]
    probability: list[float]
    shadow_probability: list[float]
    adapter_version: str
    bundle: str
    source: Source
    created_at: str
    rule: list[int]
    flag: list[int]
    conflicts: Count
    feature_sums: list[float]
    feature_squares: list[float]
    candidate_probability: list[float] | None = None
    candidate_version: str | None = None


class Conflicts(Record, frozen=True, kw_only=True):
    """Only the transactions where the rule says fraud and the model says p < 0.30, with their rows."""

    batch_id: str
    transaction_ids: list[str]
    features: list[list[float]]
    probability: list[float]
    adapter_version: str
    source: Source
    created_at: str


class HealRequest(Record, frozen=True, kw_only=True):
    """Small and repeatable: the rows are named as offsets, never carried. parameters: numbers the policy
    reads (heal_steps, heal_lr). at: the stream's time of the batch that asked. Policy guarded: purpose; blocks: how
    many of the entries of `transactions`, oldest first, form each block of a diagnosis; fresh: how many of the
    newest entries a learner has not seen yet."""

    request_id: Id
    policy: Policy
    reason: str
    base_version: Id
    bundle: str
    batch_id: str
    at: str
    transactions: Annotated[list[OffsetRange], msgspec.Meta(min_length=1, max_length=10_000)]
    labels: Annotated[list[OffsetRange], msgspec.Meta(max_length=10_000)] = []
    parameters: dict[str, float] = {}
    purpose: Literal["diagnose", "learn"] = "diagnose"
    blocks: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(max_length=100)] = []
    fresh: Count = 0


class Control(Record, frozen=True, kw_only=True):
    """One setting in force, keyed by its name. active, candidate, pin: a version (None: no such). thresholds:
    the facts of the file the monitor was given."""

    setting: Literal["active", "candidate", "pin", "thresholds"]
    at: str
    by: str
    reason: str
    version: str | None = None
    previous: str | None = None
    batch_id: str | None = None
    values: dict[str, float] | None = None


EventKind = Literal[
    "service-started",
    "service-stopped",
    "service-restarted",
    "drift-detected",
    "drift-ended",
    "alarm",
    "heal-requested",
    "heal-finished",
    "heal-failed",
    "diagnosed",
    "adapter-activated",
    "adapter-rejected",
    "rolled-back",
    "fenced",
    "thinning-changed",
    "record-refused",
]


class Event(Record, frozen=True, kw_only=True):
    """Something not routine: one line a person can read, and its facts (flattened on the wire)."""

    at: str
    kind: str
    message: str
    service: str = ""
    facts: dict[str, Any] = {}


class Metrics(Record, frozen=True, kw_only=True):
    """A row per batch: the columns of metrics.csv, in this order (shared by the topic, the CSV, the report).

    batch_idx: 1, 2, .. in the monitor's order. timestamp: the batch's created_at. z_score: FIDI of the watched
    feature (None before it is defined). *_baseline: on the bundle's held-out clean rows. *_shadow: the frozen
    network on this batch. *_healed: the probabilities as served, so fixed before the labels were known.
    *_post_heal: the adapter fitted on this batch, scored on these same rows, as the published experiment does.
    acc_lift, f1_lift: healed minus shadow. acc_lift_post_heal: post-heal minus shadow, acc_lift where no heal was.
    Scores are None until labels complete the row. thinning: this row stands for 1/thinning batches. settled: no
    decision about this batch is still to come. Policy guarded only (left out of the CSV otherwise): verdict: what the
    monitor takes the stream for; alarm_z: worst z of any column over the newest blocks; candidate_version: on trial
    when the row was first written; evidence: ln E for that candidate, None without one."""

    batch_idx: Count
    batch_id: str
    timestamp: str
    rows: Count
    z_score: float | None
    n_conflicts: Count
    accuracy_baseline: float | None = None
    precision_baseline: float | None = None
    recall_baseline: float | None = None
    f1_baseline: float | None = None
    accuracy_shadow: float | None = None
    precision_shadow: float | None = None
    recall_shadow: float | None = None
    f1_shadow: float | None = None
    accuracy_healed: float | None = None
    precision_healed: float | None = None
    recall_healed: float | None = None
    f1_healed: float | None = None
    acc_lift: float | None = None
    f1_lift: float | None = None
    accuracy_post_heal: float | None = None
    f1_post_heal: float | None = None
    acc_lift_post_heal: float | None = None
    state: State = "HEALTHY"
    action: str = "none"
    rolled_back: bool = False
    loss_total: float | None = None
    loss_label: float | None = None
    loss_rule: float | None = None
    loss_entropy: float | None = None
    flagged_share: float | None = None
    labelled: Count = 0
    cost_healed: float | None = None
    cost_shadow: float | None = None
    adapter_version: str = FIRST_VERSION
    next_version: str = FIRST_VERSION
    thinning: float = 1.0
    settled: bool = False
    verdict: str = ""
    alarm_z: float | None = None
    candidate_version: str | None = None
    evidence: float | None = None


T = TypeVar("T", bound=msgspec.Struct)


@functools.cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def decode(kind: type[T], value: bytes | None) -> T:
    """Check one record's JSON against its type. Raises Refused, which names the field at fault."""
    if value is None:
        raise Refused("no value (a tombstone)")
    try:
        record: T = _decoder(kind).decode(value)
        return record
    except msgspec.ValidationError as exc:
        reason, _, path = str(exc).partition(" - at `$")
        path = path.rstrip("`")
        if (missing := reason.removeprefix("Object missing required field `")) != reason:
            path = f"{path}.{missing.rstrip('`')}"
        raise Refused(reason, path.lstrip(".") or None) from exc
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise Refused(f"not JSON: {exc}") from exc


def encode(record: msgspec.Struct | Mapping[str, Any]) -> bytes:
    """JSON bytes; NumPy arrays in a mapping are written as lists. NaN would become null: never pass one."""
    if isinstance(record, Event):
        return encode_event(record)
    body = msgspec.structs.asdict(record) if isinstance(record, msgspec.Struct) else record
    return orjson.dumps(body, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def encode_event(event: Event) -> bytes:
    """Facts beside the fixed fields, not below them: what `tail` and any other reader filters on."""
    fixed = {"at": event.at, "kind": event.kind, "message": event.message, "service": event.service}
    return orjson.dumps({**event.facts, **fixed}, option=orjson.OPT_SERIALIZE_NUMPY)


def decode_event(value: bytes | None) -> Event:
    """The inverse of encode_event. Raises Refused."""
    event = decode(Event, value)
    try:
        body = msgspec.json.decode(value or b"{}")  # the facts too, which nobody has looked at yet
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise Refused(f"not JSON: {exc}") from exc
    facts = {k: v for k, v in body.items() if k not in ("at", "kind", "message", "service")}
    return msgspec.structs.replace(event, facts=facts)


def check_batch(batch: Transactions, n_features: int) -> None:
    """What the type cannot say: equal lengths, row widths, finite numbers, distinct ids. Raises Refused."""
    rows = len(batch.transaction_ids)
    if len(batch.features) != rows:
        raise Refused(f"{len(batch.features)} rows for {rows} transaction ids", "features")
    if len(set(batch.transaction_ids)) != rows:
        raise Refused("a transaction id occurs twice in the batch", "transaction_ids")
    for i, row in enumerate(batch.features):
        if len(row) != n_features:
            raise Refused(f"{len(row)} features, the bundle has {n_features}", f"features[{i}]")
        for j, number in enumerate(row):
            if not math.isfinite(number):
                raise Refused("not a finite number", f"features[{i}][{j}]")
    if batch.amounts is not None:
        if len(batch.amounts) != rows:
            raise Refused(f"{len(batch.amounts)} amounts for {rows} transaction ids", "amounts")
        if not all(math.isfinite(a) for a in batch.amounts):
            raise Refused("an amount is not a finite number", "amounts")


def check_labels(labels: Labels) -> None:
    """Equal lengths and distinct ids. Raises Refused."""
    if len(labels.labels) != len(labels.transaction_ids):
        raise Refused(f"{len(labels.labels)} labels for {len(labels.transaction_ids)} ids", "labels")
    if len(set(labels.transaction_ids)) != len(labels.transaction_ids):
        raise Refused("a transaction id occurs twice", "transaction_ids")
