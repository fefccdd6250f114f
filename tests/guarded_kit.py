"""The pipeline of policy guarded in one process, without Kafka: a scorer, the monitor's fold, the healer's answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from monitor_kit import AT, LOCKSTEP, stamp

from healer.answering import Answering
from healer.knowledge import Knowledge
from healer.rows import Entry
from monitor.decide import Input, fold
from monitor.setup import Decision, Setup
from monitor.state import Core, State
from scorer.decode import Batch
from scorer.score import Job, score
from shared.adapters import Adapter, first_adapter
from shared.bundle import Array, Bundle
from shared.forward import Folded, Network
from shared.kafka import Taken
from shared.records import HealRequest, Labels, Metrics, Source, encode

Rows = tuple[Array, np.ndarray]  # x (n, d) float32, y (n,)


class World:
    """What the healer reads: rows and labels by where they stand, adapters by version."""

    def __init__(self, bundle: Bundle) -> None:
        first = first_adapter(bundle)
        self.adapters: dict[str, Adapter] = {first.version: first}
        self.batches: dict[int, tuple[str, Array]] = {}
        self.labels: dict[int, Labels] = {}

    def get(self, version: str) -> Adapter:
        return self.adapters[version]

    def next_versions(self, count: int) -> list[str]:
        first = len(self.adapters) + 1
        return [f"v{first + i}" for i in range(count)]

    def read(self, request: HealRequest) -> Any:
        raise AssertionError("policy reference is not played here")

    def read_entries(self, request: HealRequest) -> list[Entry]:
        named = [label for r in request.labels for label in [self.labels[r.start]]]
        return [_entry(*self.batches[r.start], named) for r in request.transactions]


def _entry(name: str, x: Array, named: Sequence[Labels]) -> Entry:
    given, audit = np.full(len(x), -1, np.int8), np.zeros(len(x), bool)
    for record in named:
        if record.batch_id == name:
            at = [int(i.rpartition("-")[2]) for i in record.transaction_ids]
            given[at], audit[at] = record.labels, record.kind == "audit"
    return Entry(x, given, audit)


class Pipeline:
    """between: called between any two records with the state, to give the one to go on with."""

    def __init__(
        self, bundle: Bundle, setup: Setup, knowledge: Knowledge | None = None,
        between: Callable[[State], State] = lambda state: state,
    ) -> None:  # fmt: skip
        self.bundle, self.setup, self.between = bundle, setup, between
        self.state, self.world, self.network = State(Core(bundle=bundle.hash)), World(bundle), Network.of(bundle)
        self.healer = Answering(bundle, "", self.world, self.world, knowledge)
        self.decisions: list[Decision] = []
        self.rows: dict[str, Metrics] = {}
        self.k = 0

    def batch(self, x: Array) -> Metrics:
        """Scored by what is in force, seen by the monitor, and whatever it asks is answered before this returns."""
        self.k += 1
        name, where = f"b{self.k}", Source(topic="transactions", partition=0, offset=self.k)
        self.world.batches[self.k] = name, x
        active = Folded.of(self.world.adapters[self.state.core.active], self.network)
        trial = self.state.learning.trial
        candidate = None if trial is None else Folded.of(self.world.adapters[trial.version], self.network)
        job = Job(Batch(name, ids(name, x), x, stamp(self.k)), msgspec.structs.asdict(where), active)
        (answer,) = score([job], self.bundle, self.network, candidate)
        assert not isinstance(answer, Exception)
        self.feed(Input("predictions", where, name.encode(), answer.prediction, LOCKSTEP), x)
        return self.rows[name]

    def label(self, k: int, y: np.ndarray, kind: str = "delayed", rows: Sequence[int] | None = None) -> None:
        """Labels of batch k; rows: which, all of them by default."""
        at = list(range(len(y))) if rows is None else list(rows)
        name = f"b{k}"
        record = Labels(
            batch_id=name, transaction_ids=[f"{name}-{i}" for i in at], labels=[int(y[i]) for i in at],
            kind="audit" if kind == "audit" else "delayed",
        )  # fmt: skip
        offset = len(self.world.labels)
        self.world.labels[offset] = record
        where = Source(topic="labels", partition=0, offset=offset)
        self.feed(Input("labels", where, name.encode(), encode(record), {}))

    def feed(self, record: Input, rows: Array | None = None) -> None:
        self.state = self.between(self.state)
        decisions = fold(self.state, self.setup, record, AT, rows)
        self.decisions += decisions
        self.rows |= {d.record.batch_id: d.record for d in decisions if isinstance(d.record, Metrics)}
        for asked in [d.record for d in decisions if isinstance(d.record, HealRequest)]:
            self.answer(asked)

    def answer(self, asked: HealRequest) -> None:
        answer = self.healer.answer(Taken("heal-requests", 0, 0, 0, asked.request_id.encode(), encode(asked), {}))
        self.world.adapters |= {a.version: a for a in answer.adapters}
        for out in answer.outputs:
            if out.topic == "events":
                self.feed(Input("events", Source(topic="events", partition=0, offset=0), b"healer", out.value, {}))

    def events(self) -> list[Any]:
        return [d.record for d in self.decisions if d.topic == "events"]

    def kinds(self) -> list[str]:
        return [e.kind for e in self.events()]

    def requests(self) -> list[HealRequest]:
        return [d.record for d in self.decisions if isinstance(d.record, HealRequest)]

    def control(self, setting: str) -> list[str | None]:
        return [d.record.version for d in self.decisions if d.topic == "control" and d.record.setting == setting]

    def told(self) -> str:
        """For a person who looks at a failure."""
        return "\n".join(json.dumps({"kind": e.kind, "message": e.message}) for e in self.events())


def ids(name: str, x: Array) -> list[str]:
    return [f"{name}-{i}" for i in range(len(x))]
