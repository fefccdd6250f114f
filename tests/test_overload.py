"""Overload and starvation: backlogs, a healer that was down, labels that never come, clocks that jump, rows gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import psutil
import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st
from in_thread import running

from healer.stale import plan
from shared.bundle import Bundle
from shared.errors import Refused
from shared.kafka import Out, Session, Taken, Writer, group_offsets, watermarks
from shared.records import Event, HealRequest, Metrics, OffsetRange, decode, decode_event, encode
from shared.topics import Name, group_name, topic_name

AT = "2026-01-01T00:00:07Z"
HOUR_MS = 3_600_000
NOW_MS = 1_800_000_000_000
ReadTopic = Callable[..., list[Message]]
WaitFor = Callable[..., None]
T = TypeVar("T")


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
        return [e for e in _good(self._read("events"), decode_event) if e.kind in kinds]

    def rows(self) -> dict[str, Metrics]:
        """Of each batch the newest row."""
        return {row.batch_id: row for row in _good(self._read("metrics"), lambda value: decode(Metrics, value))}

    def batches_of(self, name: Name) -> Counter[str]:
        return Counter(m.key().decode() for m in self._read(name))


def _good(messages: list[Message], kind: Callable[[bytes | None], T]) -> list[T]:
    """What can be read of them: some tests put junk beside it."""
    found = []
    for message in messages:
        try:
            found.append(kind(message.value()))
        except Refused:
            continue
    return found


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


@pytest.mark.broker
def test_rows_that_retention_took_end_a_heal_request_by_name(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor
) -> None:
    """Of one batch all rows, of another a part of its range; the one after it is healed."""
    for name in ("a", "b", "c"):
        stranger.batch(name, rows=20)
    stranger.flush()
    span = stranger.span()
    admin = AdminClient(kafka)
    gone = TopicPartition(span.topic, 0, span.start + 2)
    for future in admin.delete_records([gone]).values():
        future.result(10)
    first, whole, last = (
        msgspec.structs.replace(span, start=a, end=b)
        for a, b in ((span.start, span.start + 1), (span.start, span.end), (span.start + 2, span.end))
    )
    for name, wanted in (("one", first), ("part", whole), ("left", last)):
        stranger.request(name, [wanted])
    stranger.flush()
    with running("healer", kafka, prefix, bundle):
        wait_for(lambda: len(stranger.events("heal-failed", "heal-finished")) == 3, "three outcomes", 30)
    outcomes = {e.facts["request_id"]: e for e in stranger.events("heal-failed", "heal-finished")}
    assert outcomes["one"].facts["reason"].startswith("rows-gone")
    assert outcomes["part"].facts["reason"].startswith("rows-gone")
    assert outcomes["left"].kind == "heal-finished"
    assert stranger.events("service-stopped")


@pytest.mark.broker
def test_a_scorer_alone_scores_and_needs_nobody(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor
) -> None:
    with running("scorer", kafka, prefix, bundle, poll_s=0.05):
        for k in range(30):
            stranger.batch(f"b{k}")
        stranger.flush()
        wait_for(lambda: len(stranger.batches_of("predictions")) == 30, "30 predictions")
    assert set(stranger.batches_of("predictions").values()) == {1}


@pytest.mark.broker
def test_a_monitor_that_starts_a_day_late_by_a_clock_that_runs_backwards_reads_all_of_it(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor
) -> None:
    """Kafka's timestamps lie a day back; created_at runs backwards; nothing is decided by either."""
    day_ago_ms = int(time.time() * 1000) - 24 * HOUR_MS
    n = 40
    for k in range(n):
        stranger.batch(f"b{k}", at_ms=day_ago_ms - k * 60_000, created_at=f"2026-01-01T00:{59 - k:02d}:00Z")
        stranger.labels(f"b{k}", at_ms=day_ago_ms - k * 60_000)
    stranger.flush()
    with running("scorer", kafka, prefix, bundle, poll_s=0.05):
        wait_for(lambda: len(stranger.batches_of("predictions")) == n, "all predictions")
    with running("monitor", kafka, prefix, bundle, poll_s=0.05, policy="observe"):
        wait_for(lambda: sum(row.settled for row in stranger.rows().values()) == n, "every row settled", 30)
    rows = sorted(stranger.rows().values(), key=lambda row: row.batch_idx)
    assert [row.batch_id for row in rows] == [f"b{k}" for k in range(n)]
    assert [row.timestamp for row in rows] == [f"2026-01-01T00:{59 - k:02d}:00Z" for k in range(n)]
    assert all(row.accuracy_healed is not None for row in rows)
    assert stranger.events("record-refused", "fenced") == []


@pytest.mark.broker
def test_labels_that_never_come_and_labels_of_nobody_leave_a_bounded_state(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: ReadTopic, wait_for: WaitFor
) -> None:
    """More labels of nobody, then more batches without labels, than pending_max lets wait. Labels are read no further
    while so many wait for their batch, and are given up when twice as many newer batches came: those that come then,
    of a batch that is there, are read."""
    pending_max, n = 20, 200
    for k in range(3 * pending_max):
        stranger.labels(f"nobody-{k}")
    for k in range(n):
        stranger.batch(f"b{k}")
    stranger.flush()
    labels, group = topic_name("labels", prefix), group_name("monitor", prefix)

    def read() -> bool:
        return sum(group_offsets(kafka, group, [labels]).values()) == 3 * pending_max

    with running("monitor", kafka, prefix, bundle, poll_s=0.05, pending_max=pending_max, policy="observe"):
        wait_for(read, "the labels of nobody", 40)  # before any batch: so the newer ones outlast them
        with running("scorer", kafka, prefix, bundle, poll_s=0.05):
            wait_for(lambda: len(stranger.rows()) == n, "a row of every batch", 40)
        stranger.labels(f"b{n - 1}")
        stranger.flush()
        wait_for(lambda: stranger.rows()[f"b{n - 1}"].accuracy_healed is not None, "the last batch's labels", 40)
    parts: dict[str, bytes | None] = {m.key().decode(): m.value() for m in read_topic("state")}
    kept = [key.partition("/")[0] for key, value in parts.items() if value is not None]
    assert 0 < kept.count("pending") <= pending_max
    assert kept.count("early") <= 1.5 * pending_max
    unjudged = [name for name, row in stranger.rows().items() if row.action == "unjudged"]
    assert len(unjudged) == n - 1 - kept.count("pending")


@pytest.mark.broker
@pytest.mark.parametrize("backlog", [20_000])
def test_a_backlog_is_worked_off_with_bounded_memory(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, wait_for: WaitFor, backlog: int
) -> None:
    """Input faster than scoring: the lag lies in Kafka, not in the scorer. What it holds is the client's queue (64 MiB
    at most, however far behind) and one turn."""
    for k in range(backlog):
        stranger.batch(f"b{k}", rows=2, partition=k % 2)
    stranger.flush()
    process, peaks = psutil.Process(), [psutil.Process().memory_info().rss]
    topic = topic_name("predictions", prefix)

    def predicted() -> int:
        peaks.append(process.memory_info().rss)
        return sum(high for _, high in watermarks(kafka, topic).values())

    with running("scorer", kafka, prefix, bundle, poll_s=0.05):
        wait_for(lambda: predicted() >= backlog, "every batch scored", 60)
    grown_mib = (max(peaks) - peaks[0]) / 2**20
    print(f"a backlog of {backlog:,} batches: RSS {peaks[0] / 2**20:.0f} MiB, at most {grown_mib:.0f} MiB more")
    assert grown_mib < 64 + 128  # both clients' queues, a turn, and what the allocator keeps
    group = group_name("scorer", prefix)
    done = group_offsets(kafka, group, [topic_name("transactions", prefix)])
    assert sum(done.values()) == backlog
