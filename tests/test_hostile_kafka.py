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
