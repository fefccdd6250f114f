"""A stranger who may write to every topic: services carry on, and nobody who looks is stopped by it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from test_overload import Stranger, running

from monitor.export import export_run
from selfheal.control import versions
from selfheal.status import as_json, look
from selfheal.tail import as_json as tailed
from shared.bundle import Bundle
from shared.kafka import read_all
from shared.records import encode
from shared.topics import TOPICS, topic_name

pytestmark = pytest.mark.broker
JUNK = (
    b"", b"\xff\xfe\x00", b"not JSON", b"[" * 100_000, b"{}",
    b'{"a":{"\x80":1},"at":"x","kind":"heal-finished","message":"m"}',
    encode({"setting": "everything", "at": "9999-12-31T23:59:59Z", "by": "x", "reason": "r", "version": "v1"}),
    encode({"setting": "active", "at": "9999-12-31T23:59:59Z", "by": "x", "reason": "r", "version": "v999999"}),
)  # fmt: skip


@pytest.fixture
def stranger(kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: Callable[..., list[Message]]) -> Stranger:
    return Stranger(kafka, prefix, bundle, read_topic)


def test_junk_on_every_topic_stops_nobody(
    stranger: Stranger,
    kafka: dict[str, str],
    prefix: str,
    bundle: Bundle,
    wait_for: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Before they start and while they run. The monitor's own memory (`state`) is the exception: its ACL guards it."""
    topics = [name for name in TOPICS if name != "state"]

    def spoil() -> None:
        producer = Producer({**kafka, "linger.ms": 5})
        for name in topics:
            for i, value in enumerate([*JUNK, None]):
                keys: tuple[bytes | None, ...] = (
                    (b"active", None, b"\xff\xfe") if name == "control" else (f"v{i + 50}".encode(),)
                )
                for key in keys:
                    if key is not None or not TOPICS[name].compacted:  # a compacted topic takes no record without one
                        producer.produce(
                            topic_name(name, prefix), value, key, partition=0, headers={"version": b"\xff"}
                        )
        assert producer.flush(30) == 0

    spoil()
    with (
        running("scorer", kafka, prefix, bundle, poll_s=0.05),
        running("healer", kafka, prefix, bundle),
        running("monitor", kafka, prefix, bundle, poll_s=0.05),
    ):
        wait_for(lambda: len(stranger.events("service-started")) == 3, "three services", 40)
        spoil()
        for k in range(3):
            stranger.batch(f"b{k}")
            stranger.labels(f"b{k}")
        stranger.flush()
        done = {f"b{k}" for k in range(3)}
        wait_for(lambda: done <= {n for n, row in stranger.rows().items() if row.settled}, "three settled rows", 40)
    assert stranger.batches_of("predictions")["b0"] == 1
    assert b"b0" in as_json(look(kafka, prefix))
    assert "v50" in versions(kafka, prefix)
    run = export_run(kafka, prefix, tmp_path)
    assert {row.batch_id for row in run.rows} == done
    out = io.BytesIO()
    for name in TOPICS:
        for record in read_all(kafka, topic_name(name, prefix)):
            out.write(tailed(name, record))
    assert out.tell() > 0


BOMB_BYTES = 105_000_000  # a few kB on the wire, and more than receive.message.max.bytes once unpacked


def test_a_batch_that_cannot_be_unpacked_is_stepped_over_and_named(
    stranger: Stranger, kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: Callable[..., list[Message]],
    wait_for: Callable[..., None],
) -> None:  # fmt: skip
    """The client would ask for it for ever. Each record of the compressed batch has its dead letter, what lies behind
    it is read, and after a restart in the middle of it nothing is answered twice."""
    stranger.batch("before")
    stranger.flush()
    for name in ("transactions", "control", "adapters", "labels"):
        producer = Producer(
            {
                **kafka,
                "compression.type": "zstd",
                "message.max.bytes": 10**9,
                "batch.size": 2 * 10**9,
                "linger.ms": 2000,
            }
        )
        producer.produce(topic_name(name, prefix), b"x", b"k", partition=0)
        producer.produce(topic_name(name, prefix), bytes(BOMB_BYTES), b"k", partition=0)
        assert producer.flush(60) == 0
    stranger.batch("after")
    stranger.labels("after")
    stranger.flush()
    with running("scorer", kafka, prefix, bundle, poll_s=0.05, turn_max=2):  # one of the two, in its first turn
        wait_for(lambda: read_dead(kafka, prefix), "a first dead letter", 40)
    with running("scorer", kafka, prefix, bundle, poll_s=0.05), running("monitor", kafka, prefix, bundle, poll_s=0.05):
        wait_for(
            lambda: (row := stranger.rows().get("after")) is not None and row.accuracy_healed is not None, "a row", 60
        )
    assert stranger.batches_of("predictions") == {"before": 1, "after": 1}
    letters = read_dead(kafka, prefix)
    bombs = {f"{prefix}.labels/0/1", f"{prefix}.transactions/0/2"}
    assert bombs <= {
        place for place, reason in letters.items() if reason.startswith("cannot be unpacked: Decompression")
    }
    assert set(letters) - bombs == {f"{prefix}.labels/0/0", f"{prefix}.transactions/0/1"}  # in the same batch as a rule


def read_dead(kafka: dict[str, str], prefix: str) -> dict[str, str]:
    """Dead letters by place, each with its reason; none comes twice."""
    found = read_all(kafka, topic_name("dead-letters", prefix))
    letters = {(r.key or b"").decode(): r.headers["reason"].decode() for r in found}
    assert len(letters) == len(found)
    return letters
