"""Overload and starvation: backlogs, a healer that was down, labels that never come, clocks that jump, rows that went."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from healer import service as healer_service
from healer.stale import plan
from monitor import service as monitor_service
from scorer import service as scorer_service
from shared.bundle import Bundle
from shared.kafka import Out, Session, Taken, Writer, group_offsets, watermarks
from shared.records import Event, HealRequest, Metrics, OffsetRange, decode, decode_event, encode
from shared.settings import HealerSettings, MonitorSettings, ScorerSettings, ServiceSettings, load
from shared.topics import Name, group_name, topic_name

AT = "2026-01-01T00:00:07Z"
HOUR_MS = 3_600_000
NOW_MS = 1_800_000_000_000
SERVICES: dict[str, tuple[ModuleType, type[ServiceSettings]]] = {
    "scorer": (scorer_service, ScorerSettings),
    "healer": (healer_service, HealerSettings),
    "monitor": (monitor_service, MonitorSettings),
}
ReadTopic = Callable[..., list[Message]]
WaitFor = Callable[..., None]


# --- a healer that was down: which requests are still worth a fit


def asked(i: int, *, base: str = "v1", waited_s: float = 3_600, bundle: str = "b", purpose: str = "diagnose") -> Taken:
    request = {
        "request_id": f"heal-{i}", "policy": "reference", "reason": "r", "base_version": base, "bundle": bundle,
        "batch_id": "b", "at": AT, "transactions": [{"topic": "t", "partition": 0, "start": 0, "end": 1}],
        "purpose": purpose,
    }  # fmt: skip
    return Taken("heal-requests", 0, i, NOW_MS - int(waited_s * 1000), None, encode(request), {})


requests = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v3"]), st.sampled_from([0.0, 59.0, 61.0, 3_600.0]), st.sampled_from(["b", "other"]),
        st.sampled_from(["diagnose", "learn"]), st.booleans(),
    ),
    max_size=12,
)  # fmt: skip


@given(requests)
def test_every_waiting_request_is_answered_once_in_order_and_only_overtaken_ones_go_without_a_fit(
    waiting: list[tuple[str, float, str, str, bool]],
) -> None:
    taken = [
        Taken("heal-requests", 0, i, NOW_MS, None, b"junk", {}) if junk
        else asked(i, base=base, waited_s=waited, bundle=bundle, purpose=purpose)
        for i, (base, waited, bundle, purpose, junk) in enumerate(waiting)
    ]  # fmt: skip
    left, answered = taken, []
    while left:
        turn = plan(left, NOW_MS, 60.0, "b")
        assert turn.now
        assert all(stale is not None for _, stale in turn.now[:-1])  # one fit a transaction, at most
        answered += turn.now
        assert len(turn.now) + len(turn.later) == len(left)
        left = list(turn.later)
    assert [record for record, _ in answered] == taken
    for i, (_, stale) in enumerate(answered):
        base, waited, _bundle, purpose, junk = waiting[i]
        heirs = [
            j for j, (b, _w, of, p, broken) in enumerate(waiting)
            if j > i and not broken and (b, p, of) == (base, purpose, "b")
        ]  # fmt: skip
        assert (stale is not None) == (not junk and waited > 60 and bool(heirs))
        if stale is not None:
            assert stale.reason.startswith(f"superseded: it waited {waited:.0f} s, and heal-{heirs[-1]} asks")


def test_a_clock_that_was_set_back_keeps_every_request() -> None:
    ahead = [asked(i, waited_s=-3_600) for i in range(3)]
    assert plan(ahead, NOW_MS, 60.0, "b").now == [(ahead[0], None)]


@pytest.mark.broker
def test_what_is_put_back_is_taken_again_and_not_committed(
    kafka: dict[str, str], prefix: str, wait_for: WaitFor
) -> None:
    topic, group = topic_name("heal-requests", prefix), group_name("healer", prefix)
    Writer(kafka, "test").publish([Out(topic, "k", str(i).encode()) for i in range(5)])
    session = Session(kafka, name="s", group=group, topics=[topic], budget_s=20)
    taken: list[Taken] = []
    try:
        wait_for(lambda: taken.extend(session.take(5, 0.2)) or len(taken) == 5, "five records")
        session.put_back(taken[2:])
        session.commit([])
        assert group_offsets(kafka, group, [topic]) == {(topic, 0): 2}
        again: list[Taken] = []
        wait_for(lambda: again.extend(session.take(5, 0.2)) or len(again) == 3, "three records")
        assert [r.value for r in again] == [b"2", b"3", b"4"]
        session.put_back(again)  # all of them: nothing is left to commit
        session.put_back([])
        session.commit([])
        assert group_offsets(kafka, group, [topic]) == {(topic, 0): 2}
        wait_for(lambda: session.take(1, 0.2), "one record")
        session.rewind()
        third: list[Taken] = []
        wait_for(lambda: third.extend(session.take(5, 0.2)) or len(third) == 3, "three records")
        assert [r.value for r in third] == [b"2", b"3", b"4"]
    finally:
        session.close()


@contextmanager
def running(name: str, kafka: Mapping[str, str], prefix: str, bundle: Bundle, **more: Any) -> Iterator[None]:
    """A service in a thread; stopped cleanly at the end, when it must not have failed."""
    module, kind = SERVICES[name]
    stop, failed = threading.Event(), list[BaseException]()
    settings = load(kind, prefix=prefix, session_timeout_ms=6_000, **more)

    def body() -> None:
        try:
            module.run(settings, kafka, bundle, stop.is_set)
        except BaseException as exc:  # noqa: BLE001 - shown by the test's own thread
            failed.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert failed == []


class Stranger:
    """Publishes with any timestamp; reads what came of it."""

    def __init__(self, kafka: dict[str, str], prefix: str, bundle: Bundle, read: ReadTopic) -> None:
        self.kafka, self.prefix, self.bundle, self._read = kafka, prefix, bundle, read
        self._producer = Producer({**kafka, "linger.ms": 5})

    def send(self, name: Name, key: str, body: Mapping[str, Any], at_ms: int = 0, partition: int = 0) -> None:
        topic = topic_name(name, self.prefix)
        while True:
            try:
                self._producer.produce(topic, encode(body), key, partition=partition, timestamp=at_ms)
                return
            except BufferError:
                self._producer.poll(0.1)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def batch(self, name: str, rows: int = 4, at_ms: int = 0, created_at: str = AT, partition: int = 0) -> None:
        x = self.bundle.reference_x[:rows].tolist()
        ids = [f"{name}-{i}" for i in range(rows)]
        body = {"batch_id": name, "transaction_ids": ids, "features": x, "created_at": created_at}
        self.send("transactions", name, body, at_ms, partition)

    def labels(self, name: str, rows: int = 4, at_ms: int = 0) -> None:
        y = self.bundle.reference_y[:rows].tolist()
        body = {"batch_id": name, "transaction_ids": [f"{name}-{i}" for i in range(rows)], "labels": y}
        self.send("labels", name, body, at_ms)

    def request(self, request_id: str, spans: list[OffsetRange], at_ms: int = 0, base: str = "v1") -> None:
        record = HealRequest(
            request_id=request_id, policy="reference", reason="r", base_version=base, bundle=self.bundle.hash,
            batch_id="b", at=AT, transactions=spans,
        )  # fmt: skip
        self.send("heal-requests", request_id, msgspec.structs.asdict(record), at_ms)

    def span(self, name: Name = "transactions") -> OffsetRange:
        topic = topic_name(name, self.prefix)
        low, high = watermarks(self.kafka, topic)[0]
        return OffsetRange(topic=topic, partition=0, start=low, end=high)

    def events(self, *kinds: str) -> list[Event]:
        return [e for e in (decode_event(m.value()) for m in self._read("events")) if e.kind in kinds]

    def rows(self) -> dict[str, Metrics]:
        """Of each batch the newest row."""
        return {m.key().decode(): decode(Metrics, m.value()) for m in self._read("metrics")}

    def batches_of(self, name: Name) -> Counter[str]:
        return Counter(m.key().decode() for m in self._read(name))


@pytest.fixture
def stranger(kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: ReadTopic) -> Stranger:
    return Stranger(kafka, prefix, bundle, read_topic)


@pytest.mark.broker
def test_a_healer_that_was_down_for_an_hour_fits_the_newest_request_alone(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor
) -> None:
    stranger.batch("b", rows=50)
    stranger.flush()
    now_ms, span = int(time.time() * 1000), stranger.span()
    for i in range(61):
        stranger.request(f"heal-{i}", [span], now_ms - HOUR_MS + i * 60_000)  # given up once a minute, asked again
    stranger.flush()
    with running("healer", kafka, prefix, bundle):
        wait_for(lambda: len(stranger.events("heal-failed", "heal-finished")) == 61, "61 outcomes", 30)
    outcomes = stranger.events("heal-failed", "heal-finished")
    assert [e.facts["request_id"] for e in outcomes] == [f"heal-{i}" for i in range(61)]
    fitted = [e.facts["request_id"] for e in outcomes if e.kind == "heal-finished"]
    assert fitted[-1] == "heal-60"
    assert len(fitted) <= 2  # the newest, and what had waited for less than a minute
    stale = [e.facts["reason"] for e in outcomes if e.kind == "heal-failed"]
    assert all(reason.startswith("superseded: it waited") for reason in stale)
    assert outcomes[-1].facts["post_version"] == f"v{1 + 2 * len(fitted)}"  # what is not fitted takes no number
