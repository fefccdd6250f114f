"""A real Kafka for the tests that need one, a fresh pipeline's topics for each, a bundle, and a stranger's eyes.

The broker is the one that KAFKA_BOOTSTRAP_SERVERS names; else SELFHEAL_TEST_BROKER says which to start: `embedded`
(the default) or `container`. One broker a session, in its own folder and on ports of the system's choice, and every
test under its own prefix: sessions run beside each other, tests in any order.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from secure_kit import secured as secured

from shared import bundle as bundles
from shared.bundle import Bundle
from shared.kafka import create_topics
from shared.settings import BOOTSTRAP_ENV, kafka_settings
from shared.topics import Name, topic_name

PARTITIONS = 2
# How often the broker looks for transactions that lasted too long; 10 s by default.
EXPIRY_MS = "500"
# The end of a partition is said on an empty answer, which the broker holds back for fetch.wait.max.ms.
WHOLE = {"enable.partition.eof": True, "isolation.level": "read_committed", "fetch.wait.max.ms": 10}
IMAGE = "apache/kafka:4.3.1"
# Any KAFKA_* variable drops the image's own defaults, so all of a one-node broker is spelt out.
CONTAINER_SETTINGS = {
    "NODE_ID": "1",
    "PROCESS_ROLES": "broker,controller",
    "LISTENERS": "HOST://:9092,INSIDE://:19092,CONTROLLER://:9093",
    "LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # The broker ends transactions by calling itself, and the port that is mapped leads nowhere from inside.
    "INTER_BROKER_LISTENER_NAME": "INSIDE",
    "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "OFFSETS_TOPIC_NUM_PARTITIONS": "5",
    "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "TRANSACTION_STATE_LOG_NUM_PARTITIONS": "5",
    "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "AUTO_CREATE_TOPICS_ENABLE": "false",
    "TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": EXPIRY_MS,
}


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The librdkafka settings of a running broker."""
    if os.environ.get(BOOTSTRAP_ENV):
        yield kafka_settings()
        return
    match os.environ.get("SELFHEAL_TEST_BROKER", "embedded"):
        case "embedded":
            yield from _embedded(tmp_path_factory.mktemp("kafka"))
        case "container":
            yield from _container()
        case other:
            raise pytest.UsageError(f"SELFHEAL_TEST_BROKER is {other!r}; use embedded or container")


def _embedded(folder: Path) -> Iterator[dict[str, str]]:
    from selfheal.broker import EmbeddedBroker

    with EmbeddedBroker(
        folder, extra={"transaction.abort.timed.out.transaction.cleanup.interval.ms": EXPIRY_MS}
    ) as broker:
        yield {"bootstrap.servers": broker.bootstrap}


def _container() -> Iterator[dict[str, str]]:
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # the reaper's image may be out of reach; `with` removes ours
    from testcontainers.core.container import DockerContainer

    from selfheal.broker_ready import wait_ready

    with socket.socket() as probe:  # the broker must know the port under which it is reached before it starts
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    container = DockerContainer(IMAGE).with_bind_ports(9092, port)
    container.with_env("KAFKA_ADVERTISED_LISTENERS", f"HOST://127.0.0.1:{port},INSIDE://localhost:19092")
    for name, value in CONTAINER_SETTINGS.items():
        container.with_env(f"KAFKA_{name}", value)
    with container:
        wait_ready(f"127.0.0.1:{port}", 60.0)
        yield {"bootstrap.servers": f"127.0.0.1:{port}"}


@pytest.fixture
def prefix(kafka: dict[str, str]) -> Iterator[str]:
    """A prefix nobody used before, with every topic of a pipeline; partitioned ones have two."""
    fresh = f"t{uuid.uuid4().hex[:12]}"
    created = create_topics(kafka, fresh, partitions=PARTITIONS)
    yield fresh
    # Not waited for: what a test leaves behind costs the broker memory, and nobody reads it.
    admin = AdminClient({**kafka, "log_level": 0})
    admin.delete_topics(created, operation_timeout=0)
    admin.poll(0)


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained bundle; for reading only."""
    from selfheal.training import train  # torch: only for those who ask for a bundle

    folder = tmp_path_factory.mktemp("bundle")
    train(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    """The same bundle in memory."""
    return bundles.load(bundle_dir)


@pytest.fixture
def read_topic(kafka: dict[str, str], prefix: str) -> Callable[..., list[Message]]:
    """read_topic("predictions"): all committed records of a topic as it stands, seen by a plain client."""

    def read(name: Name, timeout_s: float = 20.0) -> list[Message]:
        return read_whole(kafka, topic_name(name, prefix), timeout_s)

    return read


def read_whole(kafka: dict[str, str], topic: str, timeout_s: float = 20.0) -> list[Message]:
    """All records of a topic under read_committed, partition after partition.

    Up to the end as everybody sees it, not as this reader does: commit_transaction returns before the transaction's
    markers are written, so a reader that is quick enough stops short of what is committed already.
    """
    with plain_consumer(kafka, **{"isolation.level": "read_uncommitted"}) as consumer:
        partitions = consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions
        ends = {p: _end(consumer, TopicPartition(topic, p), timeout_s) for p in partitions}
    with plain_consumer(kafka, **WHOLE) as consumer:
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        waiting, found = {p for p, end in ends.items() if end > 0}, []
        deadline = time.monotonic() + timeout_s
        while waiting:
            assert time.monotonic() < deadline, f"{topic}: no end of partitions {waiting} within {timeout_s} s"
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                found.append(message)
                continue
            assert error.code() == KafkaError._PARTITION_EOF, error
            if message.offset() >= ends[message.partition()]:
                waiting.discard(message.partition())
    return sorted(found, key=lambda m: (m.partition(), m.offset()))


def _end(consumer: Consumer, where: TopicPartition, timeout_s: float) -> int:
    """A partition that was made a moment ago may be without its leader."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            high: int = consumer.get_watermark_offsets(where, timeout=timeout_s)[1]
            return high
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def plain_consumer(kafka: dict[str, str], **more: object) -> Iterator[Consumer]:
    """A consumer with librdkafka's defaults, as a stranger's program would make it."""
    consumer = Consumer({**kafka, "group.id": "stranger", **more})
    try:
        yield consumer
    finally:
        consumer.close()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """wait_for(condition, "what", timeout_s=20): polls a condition, fails with what was waited for."""

    def wait(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(0.02)

    return wait
