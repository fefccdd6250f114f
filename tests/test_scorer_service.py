"""The scorer on a real broker: each record one prediction or one dead letter, whatever happens to the process."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from scorer import service
from scorer.turn import answer
from shared.adapters import first_adapter, pack
from shared.bundle import Bundle
from shared.errors import Fenced, OperatorError, SelfhealError
from shared.kafka import Out, Session, Taken, Writer, group_members, group_offsets
from shared.records import Control, encode
from shared.settings import ScorerSettings
from shared.topics import topic_name

pytestmark = pytest.mark.broker
ROOT = Path(__file__).parents[1]
PARTITIONS = 2


class Running:
    """A scorer in a thread of this process."""

    def __init__(self, kafka: dict[str, str], prefix: str, bundle: Bundle, slot: str, **more: Any) -> None:
        self._stop = threading.Event()
        self.failure: Exception | None = None
        settings = ScorerSettings(
            SELFHEAL_PREFIX=prefix, SELFHEAL_SESSION_TIMEOUT_MS=6_000, slot=slot, poll_s=0.05, **more
        )

        def run() -> None:
            try:
                service.run(settings, kafka, bundle, self._stop.is_set)
            except SelfhealError as exc:
                self.failure = exc

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self.alive()


@pytest.fixture
def start(kafka: dict[str, str], prefix: str, bundle: Bundle) -> Iterator[Callable[..., Running]]:
    """start(slot="0", **settings): a scorer, stopped at the end; one that failed fails the test."""
    started = []

    def start(slot: str = "0", **more: Any) -> Running:
        started.append(Running(kafka, prefix, bundle, slot, **more))
        return started[-1]

    yield start
    for scorer in started:
        scorer.stop()
        assert scorer.failure is None, scorer.failure


def batch(name: str, rows: int = 3) -> bytes:
    rng = np.random.default_rng(abs(int.from_bytes(name.encode())) % 2**32)
    ids = [f"{name}-{i}" for i in range(rows)]
    body = {"batch_id": name, "transaction_ids": ids, "features": rng.normal(size=(rows, 10)).round(3).tolist()}
    return json.dumps(body | {"created_at": "2026-01-01T00:00:00Z"}).encode()


HOSTILE: list[bytes | None] = [
    None, b"", b"junk", b"{}", b"\xff\xfe\x00", b"[" * 10_000, b"x" * 1024 * 1024, os.urandom(1024),
    batch("h1").replace(b"features", b"feature"), batch("h2", rows=1001), batch("h3").replace(b"h3-1", b"h3-0"),
    batch("h4").replace(b"[[", b"[[NaN, "), batch("h5").replace(b"[[", b"[[1e999, "),
    batch("h6").replace(b"]]", b"]"),
]  # fmt: skip


@contextmanager
def stranger(kafka: dict[str, str]) -> Iterator[Producer]:
    """A plain producer, as somebody who knows only the contract would use it."""
    producer = Producer({**kafka, "enable.idempotence": True, "message.max.bytes": 4_000_000})
    yield producer
    assert producer.flush(20) == 0


def send(kafka: dict[str, str], prefix: str, value: bytes | None, partition: int = 0, **headers: str) -> None:
    with stranger(kafka) as producer:
        producer.produce(f"{prefix}.transactions", value, b"key", partition=partition, headers=headers)


class Seen:
    """What a stranger's read_committed consumer has seen of a pipeline's output so far."""

    def __init__(self, kafka: dict[str, str], prefix: str) -> None:
        settings = {"group.id": "stranger", "isolation.level": "read_committed", "fetch.wait.max.ms": 10}
        self._consumer = Consumer({**kafka, **settings})
        topics = {"predictions": PARTITIONS, "dead-letters": 1, "events": 1}
        self._consumer.assign([TopicPartition(f"{prefix}.{t}", p, 0) for t, n in topics.items() for p in range(n)])
        self.messages: dict[str, list[Message]] = {f"{prefix}.{t}": [] for t in topics}
        self._predictions, self.letters, self._events = self.messages.values()

    def look(self) -> Seen:
        """Take in what is new; what is not a record is an error."""
        for message in self._consumer.consume(1000, 0.05):
            assert message.error() is None, message.error()
            self.messages[message.topic()].append(message)
        return self

    @property
    def predictions(self) -> dict[str, dict[str, Any]]:
        """By batch id, for tests in which each has one."""
        found = [json.loads(m.value()) for m in self._predictions]
        assert len({p["batch_id"] for p in found}) == len(found)
        return {p["batch_id"]: p for p in found}

    @property
    def headers(self) -> list[dict[str, str]]:
        """Of the dead letters."""
        return [{k: v.decode() for k, v in m.headers()} for m in self.letters]

    @property
    def answered(self) -> Counter[tuple[int, int]]:
        """How often each source (partition, offset) was answered."""
        sources = [json.loads(m.value())["source"] for m in self._predictions]
        found = Counter((s["partition"], s["offset"]) for s in sources)
        found.update((int(h["source.partition"]), int(h["source.offset"])) for h in self.headers)
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for m in self._events if (e := json.loads(m.value()))["kind"] == kind]

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def seen(kafka: dict[str, str], prefix: str) -> Iterator[Seen]:
    seen = Seen(kafka, prefix)
    yield seen
    seen.close()


def publish(kafka: dict[str, str], prefix: str, bundle: Bundle, version: str, **headers: str) -> None:
    """An adapter that makes a difference; headers replace its own."""
    changed = msgspec.structs.replace(first_adapter(bundle), version=version, logit_shift=float(version[1:]))
    value, own = pack(changed, request="r1", stage="post-heal", summary={}, at="2026-01-01T00:00:00Z")
    writer = Writer(kafka, "test-healer", linger_ms=0)
    writer.publish([Out(topic_name("adapters", prefix), version, value, own | headers)])
    writer.close()


def order(kafka: dict[str, str], prefix: str, setting: str, version: str | None) -> None:
    control = Control(setting=setting, version=version, at="2026-01-01T00:00:00Z", by="test", reason="test")
    writer = Writer(kafka, "test-monitor", linger_ms=0)
    writer.publish([Out(topic_name("control", prefix), setting, encode(control))])
    writer.close()


def test_every_record_has_one_prediction_or_one_dead_letter(kafka, prefix, start, seen, wait_for):
    start()
    sent: dict[int, list[bytes | None]] = {0: [], 1: []}
    with stranger(kafka) as producer:
        for i in range(120):
            value = HOSTILE[(i // 8) % len(HOSTILE)] if i % 8 == 3 else batch(f"b{i}")
            sent[i % 2].append(value)
            producer.produce(f"{prefix}.transactions", value, b"key", partition=i % 2)
    wait_for(lambda: len(seen.look().answered) == 120, "every record is answered")
    assert set(seen.answered.values()) == {1}
    for message in seen.letters:
        headers = {k: v.decode() for k, v in message.headers()}
        assert message.value() == sent[int(headers["source.partition"])][int(headers["source.offset"])]
        assert headers["reason"]
        assert headers["source.topic"] == f"{prefix}.transactions"
    assert len(seen.predictions) == 105


def test_what_one_transaction_has_no_time_for_is_the_next_ones(kafka, prefix, start, seen, wait_for, monkeypatch):
    monkeypatch.setattr("scorer.service.OPEN_SHARE", 0.0)  # a turn has time for one pass
    passes: list[int] = []

    def counting(records: list[Taken], *rest: Any) -> list[Out]:
        passes.append(len(records))
        return answer(records, *rest)

    monkeypatch.setattr("scorer.service.answer", counting)
    commits: list[int] = []
    sound = Session.commit

    def commit(self: Session, outputs: Iterable[Out]) -> None:
        sound(self, outputs)
        commits.append(len(passes))

    monkeypatch.setattr(Session, "commit", commit)
    left: list[int] = []
    put_back = Session.put_back
    monkeypatch.setattr(Session, "put_back", lambda self, rs: (left.append(len(rs)), put_back(self, rs)))
    with stranger(kafka) as producer:
        for i in range(400):
            value = b"junk" if i % 50 == 3 else batch(f"b{i}")
            producer.produce(f"{prefix}.transactions", value, b"key", partition=i % 2)
    start()
    wait_for(lambda: len(seen.look().answered) == 400, "every record is answered")
    assert set(seen.answered.values()) == {1}
    assert sum(passes) == 400
    assert left
    assert all(b - a <= 1 for a, b in itertools.pairwise(commits))


SCORER = """
import sys
from pathlib import Path
from selfheal.process import stop_on_signals
from shared.telemetry import set_up_logging
from scorer.service import run
from shared import bundle
from shared.settings import ScorerSettings
prefix, bootstrap, folder, slot = sys.argv[1:]
set_up_logging("WARNING")
settings = ScorerSettings(SELFHEAL_PREFIX=prefix, slot=slot, turn_max=4, SELFHEAL_SESSION_TIMEOUT_MS=6000)
run(settings, {"bootstrap.servers": bootstrap}, bundle.load(Path(folder)), stop_on_signals())
"""


@pytest.fixture
def spawn(kafka: dict[str, str], prefix: str, bundle_dir: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A scorer as a process of its own, slot 0."""
    running = []

    def spawn() -> subprocess.Popen[bytes]:
        args = [prefix, kafka["bootstrap.servers"], str(bundle_dir), "0"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        running.append(subprocess.Popen([sys.executable, "-c", SCORER, *args], env=environment))
        return running[-1]

    yield spawn
    for process in running:
        process.kill()
        process.wait()


def test_killed_again_and_again(kafka, prefix, spawn, seen, wait_for):
    records = 2_000
    with stranger(kafka) as producer:
        for i in range(records):
            value = b"junk" if i % 20 == 7 else batch(f"b{i}", rows=20)
            producer.produce(f"{prefix}.transactions", value, b"key", partition=i % 2)
    done = 0
    for life in range(1, 4):
        process = spawn()

        def goes_on(life: int = life, done: int = done) -> bool:
            return len(seen.look().events("service-started")) == life and len(seen.answered) > done

        wait_for(goes_on, "it takes up where the last one was killed", 30.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = len(seen.answered)
    assert 0 < done < records  # the kills came in the middle
    process = spawn()
    wait_for(lambda: len(seen.look().answered) == records, "the rest is answered", 60.0)
    assert set(seen.answered.values()) == {1}
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    wait_for(lambda: seen.look().events("service-stopped"), "it says that it stopped")
    started, stopped = seen.events("service-started"), seen.events("service-stopped")
    assert len(started) == 4
    assert [e["pid"] for e in stopped] == [process.pid]
    assert {(e["slot"], e["service"]) for e in started} == {("0", "scorer")}


def test_replicas_share_the_partitions_and_take_over(kafka, prefix, start, seen, wait_for):
    def shares() -> list[int]:
        return sorted(len(m.partitions) for m in group_members(kafka, f"{prefix}.scorer"))

    first = start("a")
    wait_for(lambda: shares() == [PARTITIONS], "the first has all partitions")
    second = start("b")
    wait_for(lambda: shares() == [1, 1], "each has one")
    for i in range(20):
        send(kafka, prefix, batch(f"b{i}"), partition=i % 2)
    wait_for(lambda: len(seen.look().predictions) == 20, "both score")
    first.stop()
    for i in range(20, 40):
        send(kafka, prefix, batch(f"b{i}"), partition=i % 2)
    wait_for(lambda: len(seen.look().predictions) == 40, "the second takes over", 30.0)
    assert set(seen.answered.values()) == {1}
    assert second.alive()


def test_the_adapter_swaps_between_turns(kafka, prefix, bundle, start, seen, wait_for):
    start()

    def served(name: str) -> str:
        send(kafka, prefix, batch(name))
        wait_for(lambda: name in seen.look().predictions, f"{name} is scored")
        return str(seen.predictions[name]["adapter_version"])

    numbers = iter(range(1000))

    def becomes(version: str) -> None:
        wait_for(lambda: served(f"b{next(numbers)}") == version, f"{version} serves")

    becomes("v1")
    order(kafka, prefix, "active", "v2")
    publish(kafka, prefix, bundle, "v2")
    becomes("v2")
    publish(kafka, prefix, bundle, "v3", sha256="0" * 64)
    order(kafka, prefix, "active", "v3")
    wait_for(lambda: seen.look().events("adapter-rejected"), "the event is published without any traffic")
    assert served("after") == "v2"
    (rejected,) = seen.events("adapter-rejected")
    assert (rejected["version"], rejected["field"], rejected["slot"]) == ("v3", "sha256", "0")
    order(kafka, prefix, "active", "v2")
    order(kafka, prefix, "pin", "v1")
    becomes("v1")
    order(kafka, prefix, "candidate", "v2")
    order(kafka, prefix, "pin", None)
    becomes("v2")
    wait_for(lambda: served(f"b{next(numbers)}") and "candidate_version" in list(seen.predictions.values())[-1],
             "the candidate is scored beside it")  # fmt: skip


def test_a_restart_finds_the_adapter_in_force(kafka, prefix, bundle, start, seen, wait_for):
    publish(kafka, prefix, bundle, "v2")
    publish(kafka, prefix, bundle, "v3")
    order(kafka, prefix, "active", "v3")
    send(kafka, prefix, batch("b0"))
    start()
    wait_for(lambda: seen.look().predictions, "it is scored")
    assert seen.predictions["b0"]["adapter_version"] == "v3"


def test_a_batch_waits_for_the_adapter_it_names(kafka, prefix, bundle, start, seen, wait_for):
    start()
    send(kafka, prefix, batch("b0"), adapter="v1", lockstep="1")
    wait_for(lambda: "b0" in seen.look().predictions, "v1 needs no waiting")
    send(kafka, prefix, batch("b1"), adapter="v2", lockstep="1")
    send(kafka, prefix, batch("b2"))
    publish(kafka, prefix, bundle, "v2")
    wait_for(lambda: len(seen.look().predictions) == 3, "all are scored")
    versions = {name: p["adapter_version"] for name, p in seen.predictions.items()}
    assert versions == {"b0": "v1", "b1": "v2", "b2": "v1"}
    headers = {m.key().decode(): m.headers() for m in seen.messages[f"{prefix}.predictions"]}
    assert headers == {"b0": [("lockstep", b"1")], "b1": [("lockstep", b"1")], "b2": None}


def test_an_adapter_that_never_comes_is_waited_for_once(kafka, prefix, bundle, start, seen, wait_for):
    start(adapter_wait_s=0.3)
    publish(kafka, prefix, bundle, "v7", sha256="0" * 64)
    wait_for(lambda: seen.look().events("adapter-rejected"), "v7 is refused")
    for i, version in enumerate(["v9", "v7", "v9"]):
        send(kafka, prefix, batch(f"b{i}"), adapter=version)
    send(kafka, prefix, batch("good"))
    wait_for(lambda: "good" in seen.look().predictions, "the batch after them is scored")
    found = seen.headers
    assert [h["field"] for h in found] == ["header:adapter"] * 3
    assert ["SHA-256" in h["reason"] for h in found] == [False, True, False]
    publish(kafka, prefix, bundle, "v9")  # at last

    def scored_by_v9() -> bool:
        before = len(seen.answered)
        name = f"late-{before}"
        send(kafka, prefix, batch(name), adapter="v9")
        wait_for(lambda: len(seen.look().answered) > before, f"{name} is answered")
        return name in seen.predictions

    wait_for(scored_by_v9, "v9 is not waited for, and used once it is there")


def test_a_turn_that_waits_when_told_to_stop_is_the_next_ones(kafka, prefix, bundle, start, seen, wait_for):
    first = start(adapter_wait_s=60)
    wait_for(lambda: seen.look().events("service-started"), "it runs")
    send(kafka, prefix, batch("b0"), adapter="v2")
    send(kafka, prefix, batch("b1"), partition=1)
    wait_for(lambda: "b1" in seen.look().predictions or group_members(kafka, f"{prefix}.scorer"), "it reads")
    first.stop()
    wait_for(lambda: seen.look().events("service-stopped"), "it says that it stopped")
    assert "b0" not in seen.predictions
    assert not seen.headers
    publish(kafka, prefix, bundle, "v2")
    start()
    wait_for(lambda: len(seen.look().predictions) == 2, "the next one scores both")
    assert seen.predictions["b0"]["adapter_version"] == "v2"
    assert set(seen.answered.values()) == {1}


def test_a_second_scorer_of_a_slot_ends_the_first(kafka, prefix, bundle, start, seen, wait_for):
    first = Running(kafka, prefix, bundle, "0")
    send(kafka, prefix, batch("b0"))
    wait_for(lambda: "b0" in seen.look().predictions, "the first scores")
    start()
    wait_for(lambda: len(seen.look().events("service-started")) == 2, "the second starts")
    send(kafka, prefix, batch("b1"))
    wait_for(lambda: not first.alive(), "the first ends", 30.0)
    assert isinstance(first.failure, Fenced)
    send(kafka, prefix, batch("b2"))
    wait_for(lambda: len(seen.look().predictions) == 3, "the second scores")
    assert set(seen.answered.values()) == {1}


def test_offsets_are_committed_with_the_answers(kafka, prefix, start, seen, wait_for):
    start()
    for i in range(5):
        send(kafka, prefix, batch(f"b{i}") if i % 2 else None)
    wait_for(lambda: len(seen.look().answered) == 5, "all are answered")
    topic = f"{prefix}.transactions"
    assert group_offsets(kafka, f"{prefix}.scorer", [topic])[topic, 0] == 5


def test_a_missing_topic_is_named(kafka, bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "TOPICS_WITHIN_S", 0.1)
    settings = ScorerSettings(SELFHEAL_PREFIX="nobody-made-this")
    with pytest.raises(OperatorError, match=r"nobody-made-this\.predictions.*selfheal topics"):
        service.run(settings, kafka, bundle, lambda: False)
