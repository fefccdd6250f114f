"""What the benchmarks share: a broker of their own, a filled topic, processes started and measured."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka as ck
import numpy as np
import orjson
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from producer.generator import REFERENCE
from shared.kafka import group_offsets, watermarks

ROWS = 100  # per message, as in performance.md
BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
ROOT = Path(__file__).resolve().parent.parent


def message(rng: np.random.Generator, number: int) -> bytes:
    """One transactions record of 100 rows of the reference stream: a few conflicts each."""
    x, _ = REFERENCE.rows(rng, ROWS)
    body = {
        "batch_id": f"bench-{number:07d}",
        "transaction_ids": [f"t{number:07d}-{i:03d}" for i in range(ROWS)],
        "features": x.round(6),
        "created_at": "2026-01-01T00:00:00Z",
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def fill(bootstrap: str, topic: str, count: int) -> int:
    """Publish count messages; returns the bytes of one. A thousand different ones, repeated under fresh batch ids
    would cost more than they tell, so ids repeat too: the scorer does not look across batches."""
    rng = np.random.default_rng(1)
    values = [message(rng, i) for i in range(1_000)]
    producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    for i in range(count):
        while True:
            try:
                producer.produce(topic, values[i % 1_000], f"k{i}")
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take all messages within 120 s")
    return len(values[0])


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these packages, made when it is not there."""
    python = folder / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", str(folder), "--python", sys.executable], check=True, timeout=120)
    install = [str(uv), "pip", "install", "-q", "--python", str(python), *packages]
    if subprocess.run([*install, "--torch-backend=cpu"], check=False, timeout=600, capture_output=True).returncode:
        subprocess.run(install, check=True, timeout=600)
    return python


@functools.cache  # one for good: a client collected while its last answer is being delivered crashes the process
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def make_topic(bootstrap: str, name: str, partitions: int = 6) -> None:
    new = NewTopic(name, partitions, config=BROKER_TIME)
    for future in admin(bootstrap).create_topics([new]).values():
        try:
            future.result(30)
        except ck.KafkaException as exc:
            if exc.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def stamp_by_broker(bootstrap: str, topic: str) -> None:
    """Let the broker stamp a topic's records: a program under test may pass its input's time on."""
    change = AlterConfigOpType.SET
    entries = [ConfigEntry(k, v, incremental_operation=change) for k, v in BROKER_TIME.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in admin(bootstrap).incremental_alter_configs([resource]).values():
        future.result(30)


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """End offset per partition."""
    return {p: high for p, (_, high) in watermarks({"bootstrap.servers": bootstrap}, topic).items()}


def committed(bootstrap: str, group: str, topic: str) -> int:
    """Sum of the group's committed offsets on a topic."""
    return sum(group_offsets({"bootstrap.servers": bootstrap}, group, [topic]).values())


def reset_group(bootstrap: str, group: str, topic: str) -> None:
    """Back to offset 0 on every partition; the group's last member may take its session time-out to be gone."""
    parts = [ck.TopicPartition(topic, p, 0) for p in ends(bootstrap, topic)]
    deadline = time.monotonic() + 90
    while committed(bootstrap, group, topic):
        request = [ck.ConsumerGroupTopicPartitions(group, parts)]
        try:
            admin(bootstrap).alter_consumer_group_offsets(request)[group].result(10)
        except ck.KafkaException:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def span_s(bootstrap: str, topic: str, since: dict[int, int]) -> tuple[int, float]:
    """(records, seconds) between the first and the last committed record after the given offsets, by the time at
    which the broker took them; read afterwards, so that measuring costs the program nothing."""
    consumer = ck.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "bench-span", "enable.partition.eof": True,
        "isolation.level": "read_committed", "enable.auto.commit": False,
    })  # fmt: skip
    consumer.assign([ck.TopicPartition(topic, p, o) for p, o in since.items()])
    left, times = set(since), []
    while left:
        for m in consumer.consume(5_000, 1):
            if (error := m.error()) is None:
                times.append(m.timestamp()[1])
            elif error.code() == ck.KafkaError._PARTITION_EOF:
                left.discard(m.partition())
    consumer.close()
    return len(times), (max(times) - min(times)) / 1_000


@contextmanager
def process(argv: list[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program started for a measurement, stopped by SIGTERM afterwards, killed where that takes over 20 s."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with log.open("ab") as out:
        child = subprocess.Popen(argv, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, **threads, **env})
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)


def end_cleanly() -> None:
    """SIGTERM, like Ctrl-C, ends what was started too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def selfheal(*words: str) -> list[str]:
    return [sys.executable, "-m", "selfheal", *words]


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, budget_s: float = 300) -> None:
    """Until the condition holds; a child that ends before, or too slow a one, is an error with the log's end."""
    deadline = time.monotonic() + budget_s
    while not condition():
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{child.args!r} did not finish its work:\n{log.read_text()[-2_000:]}")
        time.sleep(0.1)
