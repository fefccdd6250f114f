"""A stranger's hands on one pipeline with a healer: publishes rows and requests, reads what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message
from in_thread import in_thread

from healer.service import run
from producer.generator import REFERENCE
from shared.adapters import Adapter, unpack
from shared.bundle import Bundle
from shared.kafka import Out, Writer, group_offsets, watermarks
from shared.records import Event, HealRequest, OffsetRange, decode_event, encode
from shared.settings import HealerSettings, load
from shared.topics import Name, topic_name

AT = "2026-01-01T00:00:07Z"
X, Y = REFERENCE.rows(np.random.default_rng(5), 100, exact=True)


class Pipeline:
    """Of one prefix."""

    def __init__(self, kafka: dict[str, str], prefix: str, bundle: Bundle, read: Any, wait_for: Any) -> None:
        self.kafka, self.prefix, self.bundle, self.wait_for = kafka, prefix, bundle, wait_for
        self._read, self._writer = read, Writer(kafka, "stranger")
        self.settings = load(HealerSettings, prefix=prefix, session_timeout_ms=6_000)

    def publish(self, name: Name, *values: bytes, key: str = "k", headers: dict[str, str] | None = None) -> OffsetRange:
        """Into partition 0; returns the range of exactly these records."""
        topic = topic_name(name, self.prefix)
        start = watermarks(self.kafka, topic, committed=False)[0][1]
        self._writer.publish([Out(topic, key, v, headers or {}, 0) for v in values])
        return OffsetRange(topic=topic, partition=0, start=start, end=start + len(values))

    def publish_rows(
        self, name: str, x: npt.NDArray[Any] = X, y: npt.NDArray[Any] = Y
    ) -> tuple[OffsetRange, OffsetRange]:
        """A batch of 100 rows, unless told which, and its labels."""
        ids = [f"{name}-{i}" for i in range(len(x))]
        rows = {"batch_id": name, "transaction_ids": ids, "features": x.tolist(), "created_at": AT}
        labels = {"batch_id": name, "transaction_ids": ids, "labels": y.tolist(), "kind": "delayed"}
        return self.publish("transactions", encode(rows)), self.publish("labels", encode(labels))

    def ask(self, rows: tuple[OffsetRange, OffsetRange], **more: Any) -> HealRequest:
        """A heal-request for these rows, from v1 unless told."""
        request = HealRequest(**{
            "request_id": "heal-1", "policy": "reference", "reason": "23 conflicts", "base_version": "v1",
            "bundle": self.bundle.hash, "batch_id": "one", "at": AT, "transactions": [rows[0]], "labels": [rows[1]],
            **more,
        })  # fmt: skip
        self.publish("heal-requests", encode(request), key=request.request_id)
        return request

    def outcomes(self) -> list[Event]:
        """heal-finished, heal-failed and diagnosed, in order."""
        return [e for e in self.events() if e.kind.startswith("heal-") or e.kind == "diagnosed"]

    def events(self) -> list[Event]:
        return [decode_event(m.value()) for m in self._read("events")]

    def await_outcomes(self, count: int) -> list[Event]:
        self.wait_for(lambda: len(self.outcomes()) >= count, f"{count} outcomes")
        return self.outcomes()

    def headers(self) -> list[dict[str, str]]:
        """Of each adapters record, in order."""
        return [{k: v.decode() for k, v in m.headers()} for m in self._read("adapters")]

    def adapters(self) -> dict[str, Adapter]:
        """What is on the adapters topic, checked."""
        records = self._read("adapters")
        return {m.key().decode(): unpack(m.key(), m.value(), dict(m.headers()), self.bundle) for m in records}

    def dead_letters(self) -> list[Message]:
        return list(self._read("dead-letters"))

    def committed(self) -> int:
        """The group's offset on heal-requests."""
        topic = topic_name("heal-requests", self.prefix)
        return group_offsets(self.kafka, f"{self.prefix}.healer", [topic]).get((topic, 0), 0)

    @contextmanager
    def healing(self, slot: str = "0") -> Iterator[None]:
        """A healer in a thread of its own, stopped cleanly at the end."""
        settings = self.settings.model_copy(update={"slot": slot})
        with in_thread(lambda stop: run(settings, self.kafka, self.bundle, stop)):
            yield


def same_tensors(one: Adapter, other: Adapter) -> bool:
    pairs = [(one.reflex, other.reflex), (one.optim, other.optim)]
    return all(a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a) for a, b in pairs)
