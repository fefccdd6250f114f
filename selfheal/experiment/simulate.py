"""The same run without Kafka: the services' own pure functions, called in turn, on records kept in memory.

What a run over Kafka must equal, row for row; and quick enough (a second a seed) to ask how often something happens.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from healer.reference import heal
from monitor.decide import Input, fold
from monitor.export import TOLD, Run
from monitor.setup import Setup
from monitor.state import Core, State
from monitor.thresholds import Thresholds
from producer.lockstep import stream_time
from producer.scenarios import reference
from producer.sources import Synthetic
from scorer.decode import Batch
from scorer.score import Job, score
from selfheal.experiment.evaluate import Rows, stream_rows_as_published
from selfheal.experiment.published import BATCH_ROWS
from selfheal.experiment.summary import Parameters
from shared.adapters import Adapter, first_adapter
from shared.bundle import Bundle
from shared.errors import Refused
from shared.forward import Folded, Network
from shared.records import Event, HealRequest, Labels, Metrics, Source, encode
from shared.settings import MonitorSettings, load

_LOCKSTEP = {"lockstep": b"1"}


def stream(seed: int, variant: str, parameters: Parameters) -> list[Rows]:
    """The batches that `selfheal produce` sends for a variant."""
    if variant == "as_published":
        return stream_rows_as_published(seed, parameters.drift_strength, parameters.batches)
    scenario = reference(parameters.drift_strength)
    source = Synthetic(seed=seed, rows=BATCH_ROWS, steps=scenario.steps, exact=scenario.exact)
    batches = [source.batch(k) for k in range(1, parameters.batches + 1)]
    return [Rows(np.ascontiguousarray(b.rows, np.float32), b.labels) for b in batches if b.labels is not None]


def simulate(
    bundle: Bundle, batches: Sequence[Rows], *, seed: int, parameters: Parameters
) -> tuple[Run, dict[str, Adapter]]:
    """The run as its topics would tell it, and every adapter by version."""
    thresholds = Thresholds.model_validate(parameters.thresholds(), strict=False)
    setup = Setup.of(bundle, load(MonitorSettings, policy="reference"), thresholds)
    pipeline = _Pipeline(bundle, setup)
    for k, rows in enumerate(batches, start=1):
        pipeline.batch(f"s{seed}-{k:06d}", k, rows)
    run = Run(
        rows=sorted(pipeline.rows.values(), key=lambda row: row.batch_idx),
        events=[e for e in pipeline.events if e.kind in TOLD],
        thresholds=thresholds.values(),
        active=pipeline.state.core.active,
    )
    return run, pipeline.adapters


class _Pipeline:
    def __init__(self, bundle: Bundle, setup: Setup) -> None:
        first = first_adapter(bundle)
        self.state, self.setup = State(Core(bundle=bundle.hash)), setup
        self.adapters = {first.version: first}
        self.rows: dict[str, Metrics] = {}
        self.events: list[Event] = []
        self._bundle, self._network, self._newest = bundle, Network.of(bundle), 1

    def batch(self, name: str, k: int, rows: Rows) -> None:
        """Score it, then its labels, then whatever the monitor asks for."""
        ids = [f"{name}-{i:03d}" for i in range(1, len(rows.x) + 1)]
        at = stream_time(k)
        adapter = Folded.of(self.adapters[self.state.core.active], self._network)
        where = Source(topic="transactions", partition=0, offset=k - 1)
        job = Job(Batch(name, ids, rows.x, at), msgspec.structs.asdict(where), adapter)
        (answer,) = score([job], self._bundle, self._network, None)
        if isinstance(answer, Refused):
            raise answer
        self._read(Input("predictions", where, name.encode(), answer.prediction, _LOCKSTEP), rows)
        labels = Labels(batch_id=name, transaction_ids=ids, labels=[int(y) for y in rows.y])
        where = Source(topic="labels", partition=0, offset=k - 1)
        self._read(Input("labels", where, name.encode(), encode(labels), {}), rows)

    def _read(self, record: Input, rows: Rows) -> None:
        decisions = fold(self.state, self.setup, record, "")
        for decision in decisions:
            if isinstance(decision.record, Metrics):
                self.rows[decision.record.batch_id] = decision.record
            elif isinstance(decision.record, Event):
                self.events.append(decision.record)
        for decision in decisions:  # the healer reads a request when all that came with it is committed
            if isinstance(decision.record, HealRequest):
                self._heal(decision.record, rows)

    def _heal(self, request: HealRequest, rows: Rows) -> None:
        steps, rate = int(request.parameters["heal_steps"]), request.parameters["heal_lr"]
        done = heal(self._bundle, self.adapters[request.base_version], rows.x, rows.y, steps, rate)
        pre, post = f"v{self._newest + 1}", f"v{self._newest + 2}"
        self._newest += 2
        self.adapters[post] = msgspec.structs.replace(done.adapter, version=post, parent=pre)
        facts = {
            "request_id": request.request_id, "base_version": request.base_version, "pre_version": pre,
            "post_version": post, **msgspec.to_builtins(done.summary),
        }  # fmt: skip
        event = Event(at=request.at, kind="heal-finished", message="", service="healer", facts=facts)
        self.events.append(event)
        self._read(Input("events", Source(topic="events", partition=0, offset=0), b"healer", encode(event), {}), rows)
