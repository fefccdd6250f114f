"""A monitor's inputs made by hand: predictions, labels and heal outcomes of a model with two features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from monitor.decide import Input, fold
from monitor.fidi import Calibration
from monitor.setup import Decision, Setup
from monitor.state import Core, State
from monitor.thresholds import Thresholds
from shared.bundle import Costs, Scores
from shared.records import Event, HealRequest, Metrics, Prediction, Source, encode
from shared.topics import Name

BUNDLE = "b" * 64
AT = "2026-02-02T00:00:00Z"
LOCKSTEP = {"lockstep": b"1"}


def setup(*, thresholds: Thresholds | None = None, **more: Any) -> Setup:
    """Watches V14 with mu 0 and sigma 1; noise has mu 1 and sigma 2."""
    given: dict[str, Any] = {
        "bundle": BUNDLE,
        "calibration": Calibration(["noise", "V14"], 1, [1.0, 0.0], [2.0, 1.0]),
        "clean": Scores(accuracy=0.9, precision=0.8, recall=0.7, f1=0.75),
        "costs": Costs(),
        "flag": 0.5,
        "thresholds": thresholds or Thresholds(),
    }
    return Setup(**(given | more))


def fresh(bundle: str = BUNDLE) -> State:
    return State(Core(bundle=bundle))


def ids(batch: str, rows: int) -> list[str]:
    return [f"{batch}-{i}" for i in range(rows)]


def stamp(k: int) -> str:
    return f"2026-01-01T00:{k // 60:02d}:{k % 60:02d}Z"


def prediction(
    batch: str, probability: Sequence[float] = (0.9, 0.1, 0.2, 0.3), *, k: int = 0, v14: float = 0.0,
    conflicts: int = 0, version: str = "v1", shadow: Sequence[float] | None = None, lockstep: bool = False,
    bundle: str = BUNDLE, features: int = 2, wrong: Mapping[str, Any] | None = None,
) -> Input:  # fmt: skip
    """v14: the batch's mean of the watched feature. wrong: fields that replace the good ones."""
    rows = len(probability)
    sums = [1.0 * rows, v14 * rows] if features == 2 else [v14 * rows] * features
    record = Prediction(
        batch_id=batch, transaction_ids=ids(batch, rows), probability=list(probability),
        shadow_probability=list(shadow or probability), adapter_version=version, bundle=bundle,
        source=Source(topic="transactions", partition=0, offset=k), created_at=stamp(k), rule=[0] * rows,
        flag=[int(p > 0.5) for p in probability], conflicts=conflicts, feature_sums=sums, feature_squares=sums,
    )  # fmt: skip
    value = encode({**msgspec.structs.asdict(record), **(wrong or {})})
    headers = LOCKSTEP if lockstep else {}
    return Input("predictions", Source(topic="predictions", partition=0, offset=k), batch.encode(), value, headers)


def labels(
    batch: str, given: Sequence[int] = (1, 0, 0, 0), *, of: Sequence[str] | None = None, offset: int = 0
) -> Input:
    """of: the transaction ids; all of the batch's in their order by default."""
    names = list(of) if of is not None else ids(batch, len(given))
    record = {"batch_id": batch, "transaction_ids": names, "labels": list(given), "kind": "delayed"}
    return Input("labels", Source(topic="labels", partition=0, offset=offset), batch.encode(), encode(record), {})


def event(kind: str, service: str = "healer", **facts: Any) -> Input:
    record = Event(at=AT, kind=kind, message="m", service=service, facts=facts)
    return Input("events", Source(topic="events", partition=0, offset=0), service.encode(), encode(record), {})


def finished(request_id: str, version: str, f1: float | None = 0.5, accuracy: float | None = 0.7) -> Input:
    """A healer's success."""
    return event(
        "heal-finished", request_id=request_id, base_version="v1", pre_version="vpre", post_version=version,
        accuracy_before=0.4, f1_before=0.3, accuracy_after=accuracy, f1_after=f1, loss_total=1.0, loss_label=0.5,
        loss_rule=0.25, loss_entropy=0.125,
    )  # fmt: skip


class Run:
    """Folds records one after the other and keeps what came of it."""

    def __init__(self, of: Setup | None = None, state: State | None = None) -> None:
        self.setup = of or setup()
        self.state = state or fresh()
        self.all: list[Decision] = []

    def __call__(self, *records: Input) -> list[Decision]:
        decisions = [d for r in records for d in fold(self.state, self.setup, r, AT)]
        self.all += decisions
        return decisions

    def of(self, topic: Name) -> list[Any]:
        return [d.record for d in self.all if d.topic == topic]

    def row(self, batch: str) -> Metrics:
        """As it stands now."""
        found: Metrics = [r for r in self.of("metrics") if r.batch_id == batch][-1]
        return found

    def kinds(self) -> list[str]:
        return [e.kind for e in self.of("events")]

    def request(self) -> HealRequest:
        """The newest."""
        found: HealRequest = self.of("heal-requests")[-1]
        return found

    def heal(self, batch: str, k: int, version: str, f1: float, accuracy: float = 0.7) -> None:
        """A batch that asks for a heal and gets it."""
        self(prediction(batch, k=k, conflicts=9, version=self.state.core.active), labels(batch, offset=k))
        self(finished(self.request().request_id, version, f1, accuracy))
