"""The embedded broker, for real: a stranger's plain client against it, and processes killed for good."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from selfheal import kafka_jars
from selfheal.broker import EmbeddedBroker, running
from selfheal.broker_config import Ports, free_ports
from selfheal.flock import is_locked, try_lock
from shared.errors import OperatorError

pytestmark = pytest.mark.broker
ROOT = Path(__file__).parents[1]


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data of ours, é"  # a space, a comma for log.dirs, a letter outside ASCII


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # where nobody reaps orphans
    except psutil.NoSuchProcess:
        return True


@contextmanager
def python(code: str, *args: str, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, which does not outlive the block whatever happens in it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, *args], env=environment, **pipes, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def commit(bootstrap: str, topic: str, values: list[bytes]) -> Producer:
    settings = {"bootstrap.servers": bootstrap, "transactional.id": "test", "log_level": 0}
    producer = Producer({**settings, "message.max.bytes": 4_000_000})
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.commit_transaction(20)
    return producer


def committed(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The first ``count`` committed values, and all that follows within the same fetch."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "test", "isolation.level": "read_committed"}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(values) < count and time.monotonic() < deadline:
        values += [message.value() for message in consumer.consume(100, 0.2)]
    consumer.close()
    return values


def test_committed_data_outlives_a_restart_and_aborted_data_is_never_seen(data_dir):
    with EmbeddedBroker(data_dir, extra={"log.retention.hours": "5"}) as broker:
        assert broker.bootstrap.startswith("127.0.0.1:")
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(20)
        broker_settings = ConfigResource(ConfigResource.Type.BROKER, "1")
        settings = admin.describe_configs([broker_settings])[broker_settings].result(20)
        assert settings["log.retention.hours"].value == "5"
        producer = commit(broker.bootstrap, "t", [b"kept"])
        producer.begin_transaction()
        producer.produce("t", b"aborted", partition=0)
        producer.flush(20)
        producer.abort_transaction(20)
        commit(broker.bootstrap, "t", [b"x" * 3_000_000])
    assert not is_locked(data_dir / "lock")
    assert "server for 1 unregistered" in (data_dir / "node-1" / "server.log").read_text("utf-8")  # not killed
    with EmbeddedBroker(data_dir) as broker:
        assert committed(broker.bootstrap, "t", 2) == [b"kept", b"x" * 3_000_000]


def test_a_second_start_attaches_and_leaves_the_first_alone(data_dir):
    with EmbeddedBroker(data_dir) as first:
        second = EmbeddedBroker(data_dir)
        assert second.start() == first.bootstrap == running(data_dir)
        assert second.attached
        assert not first.attached
        second.stop()
        assert running(data_dir) == first.bootstrap
    assert running(data_dir) is None


def test_a_stale_file_is_not_believed(data_dir):
    with socket.create_server(("127.0.0.1", 0)) as stranger:  # something answers, but nobody holds the lock
        data_dir.mkdir()
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        (data_dir / "broker.json").write_text(json.dumps({"bootstrap": address, "owner_pid": os.getpid()}))
        (data_dir / "lock").touch()
        assert running(data_dir) is None
        lock = try_lock(data_dir / "lock")
        assert lock is not None
        assert running(data_dir) == address
        os.close(lock)


START_AND_WAIT = """
import sys, time
from pathlib import Path
from selfheal.broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]))
broker.start()
print(broker.nodes[0].jvm_pid(), flush=True)
time.sleep(600)
"""


def test_no_jvm_outlives_a_killed_parent(data_dir):
    with python(START_AND_WAIT, str(data_dir)) as parent:
        jvm = int(parent.stdout.readline())
        guard = psutil.Process(jvm).ppid()
        assert not ended(jvm)
        parent.kill()
    wait_for(lambda: ended(jvm) and ended(guard), "the JVM and its guard end after SIGKILL of the parent")
    assert running(data_dir) is None
    assert not is_locked(data_dir / "lock")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can tie a process to its parent")
def test_no_jvm_outlives_a_killed_guard(data_dir):
    with EmbeddedBroker(data_dir) as broker:
        jvm = broker.nodes[0].jvm_pid()
        os.kill(psutil.Process(jvm).ppid(), signal.SIGKILL)
        wait_for(lambda: ended(jvm), "the JVM ends with its guard", 5.0)
        wait_for(lambda: not broker.alive(), "the owner notices")


SERVE = "import sys; from pathlib import Path; from selfheal.broker import serve; serve(Path(sys.argv[1]))"


def test_serve_prints_one_address_and_ctrl_c_does_not_reach_the_broker(data_dir):
    with python(SERVE, str(data_dir), start_new_session=True) as server:
        address = server.stdout.readline().strip()
        assert running(data_dir) == address
        jvms = [p for p in psutil.Process(server.pid).children(recursive=True) if p.name() == "java"]
        assert len(jvms) == 1
        assert os.getpgid(jvms[0].pid) != os.getpgid(server.pid)  # what a terminal's Ctrl-C goes to
        with python(SERVE, str(data_dir)) as second:
            out, err = second.communicate(timeout=20)
        assert (second.returncode, out.strip()) == (0, address)
        assert "already running" in err
        os.killpg(server.pid, signal.SIGINT)
        out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, "")
    assert f"KAFKA_BOOTSTRAP_SERVERS={address}" in err
    assert "Traceback" not in err
    assert ended(jvms[0].pid)


def test_a_tampered_jar_never_reaches_the_jvm(data_dir, tmp_path, monkeypatch):
    real = kafka_jars.ensure_jars()
    monkeypatch.setenv("SELFHEAL_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / real[0].parent.name
    folder.mkdir(parents=True)
    for jar in real:
        (folder / jar.name).symlink_to(jar)
    victim = folder / "kafka-clients-4.3.1.jar"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    with pytest.raises(OperatorError, match=r"^kafka-clients-4\.3\.1\.jar is not the jar pinned"):
        EmbeddedBroker(data_dir).start()
    assert not data_dir.exists()


def test_a_taken_port_is_named(data_dir):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(OperatorError, match=f"port {port} "):
            EmbeddedBroker(data_dir, port=port).start()
    assert not is_locked(data_dir / "lock")


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"log.cleaner.dedupe.buffer.size": "1"}, r"(?s)could not format.*dedupe\.buffer\.size must"),
        ({"metric.reporters": "no.such.Class"}, r"(?s)the process ended.*node-1/server\.log.*no\.such\.Class"),
    ],
    ids=["format", "run"],
)
def test_a_failed_start_quotes_kafka_and_leaves_nothing(data_dir, extra, told):
    with pytest.raises(OperatorError, match=told):
        EmbeddedBroker(data_dir, extra=extra).start()
    assert not is_locked(data_dir / "lock")


def test_a_port_lost_to_a_quicker_process_is_replaced(data_dir, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        (good,) = free_ports(1, None)
        offered = [[good], [Ports(stranger.getsockname()[1], good.controller)]]
        monkeypatch.setattr("selfheal.broker.free_ports", lambda *_: offered.pop())
        with EmbeddedBroker(data_dir) as broker:
            assert broker.bootstrap == f"127.0.0.1:{good.client}"


def test_three_nodes_carry_on_without_one(data_dir):
    with EmbeddedBroker(data_dir, nodes=3) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        admin.create_topics([NewTopic("t", 1, 3)])["t"].result(20)
        commit(cluster.bootstrap, "t", [b"before"])
        os.kill(cluster.nodes[0].jvm_pid(), signal.SIGKILL)
        wait_for(lambda: not cluster.alive(), "a dead node is noticed")
        commit(cluster.bootstrap, "t", [b"after"])
        assert committed(cluster.bootstrap, "t", 2) == [b"before", b"after"]
        jvms = [node.jvm_pid() for node in cluster.nodes[1:]]
        cluster.stop(timeout_s=0.5)  # without a quorum they would take 5 s, and have to be killed
        assert all(map(ended, jvms))
