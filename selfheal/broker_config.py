"""The settings of one embedded broker, and their reasons."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from shared.errors import OperatorError

HOST = "127.0.0.1"  # nothing outside this machine can reach an embedded broker
MIB = 1 << 20

COMMON = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # Relative to the JVM's working directory: a path with a comma would be taken for two.
    "log.dirs": "log",
    # Topics are made by shared/topics.py or not at all: a misspelt name has to fail.
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # Few partitions in Kafka's own topics: fewer files to make at the first start and to recover after a crash.
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.num.partitions": "5",
    "share.coordinator.state.topic.num.partitions": "5",
    # A batch of 1,000 rows is up to 2 MiB, a hostile message 1 MiB.
    "message.max.bytes": str(4 * MIB),
    "replica.fetch.max.bytes": str(4 * MIB),
    # A week, and never more than 2 GiB per partition: a forgotten broker must not fill a laptop's disk.
    # Whole segments are deleted, hence small ones. A topic's own retention goes before these.
    "log.retention.hours": "168",
    "log.retention.bytes": str(2048 * MIB),
    "log.segment.bytes": str(128 * MIB),
    # The cleaner compacts. Its buffer is allocated at start (Kafka's default is a quarter of our heap); 16 MiB
    # remember 600,000 keys a pass.
    "log.cleaner.enable": "true",
    "log.cleaner.dedupe.buffer.size": str(16 * MIB),
}


class Ports(NamedTuple):
    """One node's two ports on HOST."""

    client: int
    controller: int


def free_ports(nodes: int, first: int | None) -> list[Ports]:
    """Ports for every node, picked by the system; ``first``, ``first + 1`` … for the clients if given. They
    are free when this returns: another process may still be quicker than the broker."""
    wanted = [0] * nodes if first is None else list(range(first, first + nodes))
    with ExitStack() as held:
        picked = []
        for port in (*wanted, *[0] * nodes):
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
            try:
                probe.bind((HOST, port))
            except OSError as exc:
                raise OperatorError(f"port {port} on {HOST} cannot be had: {exc.strerror}") from exc
            picked.append(int(probe.getsockname()[1]))
    return [Ports(*pair) for pair in zip(picked[:nodes], picked[nodes:], strict=True)]


def properties(node: int, ports: Sequence[Ports], extra: Mapping[str, str]) -> str:
    """``server.properties`` of node 1 … len(ports). extra goes before everything here; its listeners, of a broker of
    one node, come beside ours.

    The voters are static: they stand in this file alone, so the ports may change with every start.
    """
    copies = min(3, len(ports))
    in_sync = max(1, copies - 1)
    own = ports[node - 1]
    beside = [extra["listeners"]] if "listeners" in extra else []
    settings = COMMON | {
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{i}@{HOST}:{p.controller}" for i, p in enumerate(ports, 1)),
        "listeners": ",".join([f"PLAINTEXT://{HOST}:{own.client}", f"CONTROLLER://{HOST}:{own.controller}", *beside]),
        "advertised.listeners": ",".join([f"PLAINTEXT://{HOST}:{own.client}", *beside]),
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
    }
    if len(ports) > 1:  # a dead leader is noticed in 3 s
        settings |= {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
    settings |= {key: value for key, value in extra.items() if key != "listeners"}
    return "".join(f"{key}={_escaped(value)}\n" for key, value in settings.items())


def _escaped(value: str) -> str:
    """As java.util.Properties reads it back: certificates have line ends, names have letters of any alphabet."""
    units = value.encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(c) if 0x20 < c < 0x7F and c != ord("\\") else f"\\u{c:04x}" for c in codes)
