"""The pipeline without Kafka: the services' own pure functions, called in turn, on records kept in memory.

Every step takes the bytes that a topic would hold: what a run over Kafka in lockstep must equal, event for event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from healer.answering import Answering
from healer.knowledge import Knowledge, knowledge_of
from healer.rows import Entry, Rows, entries_of, join
from monitor.decide import Input, fold
from monitor.export import TOLD, Run
from monitor.setup import Decision, Setup
from monitor.state import Core, State
from monitor.thresholds import read_thresholds
from producer.batch import Batch
from producer.lockstep import stream_time
from producer.service import encode_batch
from scorer.catalog import Catalog
from scorer.decode import Decoder
from scorer.turn import Targets, answer
from shared.adapters import Adapter, first_adapter
from shared.alignment import Floats
from shared.bundle import Array, Bundle
from shared.errors import Refused, SelfhealError
from shared.forward import Network
from shared.kafka import Out, Taken
from shared.records import (
    FIRST_VERSION,
    Event,
    HealRequest,
    Labels,
    Metrics,
    OffsetRange,
    Prediction,
    Source,
    decode,
    decode_event,
    encode,
)
from shared.settings import HealerSettings, MonitorSettings, load
from shared.topics import Name

_LOCKSTEP = {"lockstep": b"1"}
_NAMES: tuple[Name, ...] = ("predictions", "conflicts", "dead-letters", "adapters", "events")


class Kit:
    """What the services work out of a bundle at their start, about 3 s; shared by all streams of the bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.network = bundle, Network.of(bundle)
        self.knowledge: Knowledge = knowledge_of(bundle)
        thresholds = read_thresholds(None)
        self.guarded = Setup.of(bundle, load(MonitorSettings, policy="guarded"), thresholds)
        # As published, but the labels are withheld: a batch is judged without them when the next one comes.
        published = load(MonitorSettings, policy="reference", label_patience=1)
        self.published = Setup.of(bundle, published, thresholds)
        self.rows_max = load(HealerSettings).rows_max


class Served(NamedTuple):
    """How a batch was scored. probability, shadow (n,): of the version in force, of the frozen network. version: in
    force. verdict: of the monitor once it has seen the batch. action: of the batch's row."""

    probability: Floats
    shadow: Floats
    version: str
    verdict: str
    action: str


class Pipeline:
    """One stream through scorer, monitor and healer."""

    def __init__(self, kit: Kit, setup: Setup) -> None:
        self.state = State(Core(bundle=kit.bundle.hash))
        self.rows: dict[str, Metrics] = {}
        self.events: list[Event] = []
        self._kit, self._setup = kit, setup
        self._catalog, self._decoder = Catalog(kit.bundle, kit.network), Decoder(len(kit.bundle.features))
        self._to = Targets({name: name for name in _NAMES}, partitions=1)
        self._topics = _Topics(kit)
        self._versions = _Versions(kit.bundle)
        self._healer = Answering(kit.bundle, "", self._topics, self._versions, kit.knowledge)

    def batch(self, k: int, batch_id: str, batch: Batch) -> Served:
        """Score it, and all that follows, until nothing is left to do: what settles a batch in lockstep."""
        ids = transaction_ids(batch_id, len(batch.rows))
        headers = _LOCKSTEP if k == 1 else {**_LOCKSTEP, "adapter": self.state.core.active.encode()}
        record = self._topics.put("transactions", batch_id, encode_batch(batch, batch_id, ids, stream_time(k)), headers)
        outs = answer([record], self._catalog.view(), self._decoder, self._kit.bundle, self._kit.network, self._to)
        if outs[0].topic != "predictions":
            raise Refused(f"{batch_id} became a dead letter: {outs[0].headers}")
        prediction = decode(Prediction, outs[0].value)
        self._read("predictions", outs[0], np.ascontiguousarray(batch.rows, np.float32))
        return Served(
            np.array(prediction.probability), np.array(prediction.shadow_probability), prediction.adapter_version,
            self.rows[batch_id].verdict, self.rows[batch_id].action,
        )  # fmt: skip

    def labels(self, due: Iterable[Labels]) -> None:
        """Labels records, in the order they are sent."""
        for each in due:
            self._read("labels", Out("labels", each.batch_id, encode(each)))

    def run(self) -> Run:
        """As its topics would tell it."""
        return Run(
            rows=sorted(self.rows.values(), key=lambda row: row.batch_idx),
            events=[e for e in self.events if e.kind in TOLD],
            thresholds=self._setup.thresholds.values(),
            active=self.state.core.active,
        )

    def _read(self, name: Name, out: Out, rows: Array | None = None) -> None:
        """The monitor folds a record; what it asks of the healer is answered, and folded in turn."""
        waiting: deque[tuple[Name, Out, Array | None]] = deque([(name, out, rows)])
        while waiting:
            name, out, rows = waiting.popleft()
            record = self._topics.put(name, out.key, out.value, _bytes(out.headers))
            source = Source(topic=record.topic, partition=record.partition, offset=record.offset)
            decisions = fold(self.state, self._setup, Input(name, source, record.key, record.value, record.headers),
                             "", rows)  # fmt: skip
            asked = [request for decision in decisions if (request := self._published(decision)) is not None]
            for request in asked:  # the healer reads a request when all that came with it is committed
                waiting.extend(("events", event, None) for event in self._healed(request))

    def _published(self, decision: Decision) -> Taken | None:
        """Where a decision goes; a heal request is handed back."""
        value = encode(decision.record)
        if decision.topic == "metrics":
            self.rows[decision.key] = decode(Metrics, value)
        elif decision.topic == "events":
            self.events.append(decode_event(value))
        taken = self._topics.put(decision.topic, decision.key, value, {})
        if decision.topic == "control" and (problem := self._catalog.control(taken)) is not None:
            raise SelfhealError(f"the scorer cannot follow {decision.key}: {problem.reason}")
        return taken if decision.topic == "heal-requests" else None

    def _healed(self, request: Taken) -> list[Out]:
        """The healer's outcome: adapters are loaded, its events handed back."""
        done = self._healer.answer(request)
        self._versions.add(done.adapters)
        events = []
        for out in done.outputs:
            if out.topic == "adapters":
                taken = self._topics.put("adapters", out.key, out.value, _bytes(out.headers))
                if (problem := self._catalog.adapter(taken)) is not None:
                    raise SelfhealError(f"the scorer refuses {problem.version}: {problem.reason}")
            elif out.topic == "events":
                self.events.append(decode_event(out.value))
                events.append(out)
            else:
                raise SelfhealError(f"the healer could not read its request: {out.headers}")
        return events


def transaction_ids(batch_id: str, n: int) -> list[str]:
    """As the producer names them."""
    return [f"{batch_id}-{i:03d}" for i in range(1, n + 1)]


def _bytes(headers: Mapping[str, str | bytes]) -> dict[str, bytes]:
    return {k: v.encode() if isinstance(v, str) else v for k, v in headers.items()}


class _Topics:
    """One partition of each; transactions and labels are kept for the healer, of others only how many."""

    def __init__(self, kit: Kit) -> None:
        self._kept: dict[str, list[Taken]] = {"transactions": [], "labels": []}
        self._ends: dict[str, int] = {}
        self._features, self._rows_max = len(kit.bundle.features), kit.rows_max

    def put(self, topic: Name, key: str | bytes | None, value: bytes | None, headers: dict[str, bytes]) -> Taken:
        offset = self._ends.get(topic, 0)
        self._ends[topic] = offset + 1
        record = Taken(topic, 0, offset, 0, key.encode() if isinstance(key, str) else key, value, headers)
        if topic in self._kept:
            self._kept[topic].append(record)
        return record

    def read(self, request: HealRequest) -> Rows:
        """As healer.rows.RowReader."""
        batches, answers = self._named(request)
        return join(batches, answers, self._features, self._rows_max)

    def read_entries(self, request: HealRequest) -> list[Entry]:
        """As healer.rows.RowReader."""
        batches, answers = self._named(request)
        return entries_of(request.transactions, batches, answers, self._features, self._rows_max)

    def _named(self, request: HealRequest) -> tuple[list[Taken], list[Taken]]:
        return self._all("transactions", request.transactions), self._all("labels", request.labels)

    def _all(self, topic: Name, ranges: Iterable[OffsetRange]) -> list[Taken]:
        offsets = sorted({o for span in ranges for o in range(span.start, span.end)})
        return [self._kept[topic][o] for o in offsets]


class _Versions:
    """Published adapters, all of one stream."""

    def __init__(self, bundle: Bundle) -> None:
        self._known: dict[str, Adapter] = {FIRST_VERSION: first_adapter(bundle)}

    def get(self, version: str) -> Adapter:
        """Raises Refused."""
        if version not in self._known:
            raise Refused(f"base-unknown: {version} was not published", "base_version")
        return self._known[version]

    def next_versions(self, count: int) -> list[str]:
        highest = max(int(version[1:]) for version in self._known)
        return [f"v{highest + 1 + i}" for i in range(count)]

    def add(self, adapters: Iterable[Adapter]) -> None:
        self._known |= {a.version: a for a in adapters}
