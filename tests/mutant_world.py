"""A small pipeline in threads of this process, whose services can be given a faulty Session, and can be made to die."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import audit
from producer.batch import Batch
from producer.drift_text import parse
from producer.service import encode_batch
from producer.sources import Synthetic
from selfheal.chaos.watch import Watch
from shared.bundle import Bundle
from shared.errors import OperatorError, SelfhealError, TimedOut
from shared.kafka import Out, Session, read_all
from shared.records import Labels, encode
from shared.settings import HealerSettings, MonitorSettings, ScorerSettings

SETTINGS = {"scorer": ScorerSettings, "healer": HealerSettings, "monitor": MonitorSettings}
MORE: dict[str, dict[str, Any]] = {
    "scorer": {"poll_s": 0.05, "turn_max": 4}, "healer": {}, "monitor": {"poll_s": 0.05, "policy": "reference"},
}  # fmt: skip
SETTLE_S = 25.0
LAG_S = 2.0  # a scorer that serves by an older control record than this is late
ROWS, DRIFTED_ROWS = 12, 60
CLEAN = Synthetic(seed=5, rows=ROWS)
DRIFTED = Synthetic(seed=5, rows=DRIFTED_ROWS, steps=tuple(parse(["shift:V14:-3:class=normal"])))


class Killed(BaseException):
    """The process is gone: nothing in it may catch this and carry on."""


class Service:
    """One service in a thread."""

    def __init__(self, room: str, kafka: dict[str, str], prefix: str, bundle: Bundle, **more: Any) -> None:
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        settings = SETTINGS[room](SELFHEAL_PREFIX=prefix, SELFHEAL_SESSION_TIMEOUT_MS=6_000, **MORE[room], **more)
        loop = importlib.import_module(f"{room}.service")

        def run() -> None:
            try:
                loop.run(settings, kafka, bundle, self._stop.is_set)
            except (SelfhealError, Killed) as exc:
                self.failure = exc

        self._thread = threading.Thread(target=run, name=room, daemon=True)
        self._thread.start()

    def dead(self) -> bool:
        return not self._thread.is_alive()

    def ask(self) -> None:
        """As SIGTERM does."""
        self._stop.set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert self.dead()


class World:
    """What a scenario works with. sabotage: makes the Session of one service faulty from its next start on."""

    def __init__(
        self, kafka: dict[str, str], prefix: str, bundle: Bundle, folder: Path, patch: pytest.MonkeyPatch, watch: Watch
    ) -> None:
        self.kafka, self.prefix, self.bundle = kafka, prefix, bundle
        self._folder, self._patch, self.watch = folder, patch, watch
        self.services: dict[str, Service] = {}
        self._sent = 0

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def sabotage(self, room: str, kind: type[Session]) -> None:
        self._patch.setattr(f"{room}.service.Session", kind)

    def patch(self, where: str, what: object) -> None:
        self._patch.setattr(where, what)

    def heal(self, room: str) -> None:
        """The next start of this service is a sound one."""
        self._patch.setattr(f"{room}.service.Session", Session)

    def start(self, *rooms: str, **more: Any) -> None:
        for room in rooms:
            self.services[room] = Service(room, self.kafka, self.prefix, self.bundle, **more)

    def until_dead(self, room: str) -> None:
        self.until(self.services[room].dead, f"the {room} dies")
        assert self.services[room].failure is not None

    def until(self, condition: Callable[[], object], what: str, within_s: float = SETTLE_S) -> None:
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
            time.sleep(0.02)

    def feed(self, batches: int, *, drifted: bool = False, labels: bool = True, junk_every: int = 0) -> list[str]:
        """Batches of a stranger, with their labels; every so many a message that nobody can use."""
        producer, ids = Producer(self.kafka), []
        for _ in range(batches):
            self._sent += 1
            batch_id = f"b{self._sent:04d}"
            batch = (DRIFTED if drifted else CLEAN).batch(self._sent)
            junk = junk_every and self._sent % junk_every == 0
            self._send(producer, batch_id, batch, labels=labels, junk=bool(junk))
            ids += [] if junk else [batch_id]
        assert producer.flush(20) == 0
        return ids

    def answer(self, ids: list[str], *, flipped: bool = False, producer: Producer | None = None) -> None:
        """Labels of batches that were sent without; flipped: each the opposite of the truth."""
        by = producer or Producer(self.kafka)
        for batch_id in ids:
            truth = CLEAN.batch(int(batch_id[1:])).labels
            assert truth is not None
            said = [1 - y if flipped else y for y in truth.tolist()]
            record = Labels(batch_id=batch_id, transaction_ids=[f"{batch_id}-{i}" for i in range(ROWS)], labels=said)
            by.produce(self.topic("labels"), encode(record), batch_id)
        assert by.flush(20) == 0

    def versions(self) -> set[str]:
        """That predictions were made by."""
        records = read_all(self.kafka, self.topic("predictions"))
        return {json.loads(r.value)["adapter_version"] for r in records if r.value}

    def _send(self, producer: Producer, batch_id: str, batch: Batch, *, labels: bool, junk: bool) -> None:
        ids = [f"{batch_id}-{i}" for i in range(len(batch.rows))]
        value = b"junk" if junk else encode_batch(batch, batch_id, ids, "2026-01-01T00:00:00Z")
        producer.produce(self.topic("transactions"), value, batch_id)
        if labels and not junk and batch.labels is not None:
            answer = Labels(batch_id=batch_id, transaction_ids=ids, labels=batch.labels.tolist())
            producer.produce(self.topic("labels"), encode(answer), batch_id)

    def tell(self, outs: Iterable[Out]) -> None:
        """Records of a stranger, committed."""
        producer = Producer(self.kafka)
        for out in outs:
            producer.produce(out.topic, out.value, out.key, headers=list(out.headers.items()))
        assert producer.flush(20) == 0

    def settled(self, within_s: float = SETTLE_S) -> bool:
        """Whether all that was sent has been worked off, by then."""
        end, still = time.monotonic() + within_s, 0
        while still < 2 and time.monotonic() < end:
            try:
                lag = self.watch.lag(budget_s=2.0)
            except (OperatorError, TimedOut):
                continue  # a transaction that moves a group's offsets is open
            still = still + 1 if not any(lag[room] for room in self.services) else 0
        self.watch.check()
        return still == 2

    def stop(self) -> None:
        for service in self.services.values():
            service.stop()

    def audited(self, **more: Any) -> audit.Report:
        self.stop()
        return audit.run(
            self.kafka, self.prefix, self._folder, complete=True, lag_s=LAG_S, **{"budget_s": 20.0, **more}
        )
