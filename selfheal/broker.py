"""A real Apache Kafka on this machine, from Python packages alone: started, found again, and never left behind.

In a data folder, kept between runs:

    lock                held by every living process of the broker; the kernel frees it, so it is never stale
    broker.json         where to reach it; there from ready to the begin of the stop, believed only while locked
    node-1/             server.properties, server.log (server.log.1: the run before), log/ with the data
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from selfheal import broker_guard, kafka_jvm
from selfheal.broker_config import Ports, free_ports
from selfheal.broker_node import Node, format_nodes
from selfheal.broker_ready import addresses, wait_ready
from selfheal.flock import is_locked, try_lock
from selfheal.kafka_jars import KAFKA_VERSION, OWN_BROKER
from shared.errors import OperatorError

START_S = 60.0
STOP_S = 15.0
PORT_TRIES = 3


def running(data_dir: Path) -> str | None:
    """The bootstrap servers of the broker that runs on this folder, if one does and takes connections."""
    folder = data_dir.resolve()
    try:
        bootstrap = str(json.loads((folder / "broker.json").read_text("utf-8"))["bootstrap"])
    except FileNotFoundError:
        return None
    if not is_locked(folder / "lock"):
        return None
    for address in addresses(bootstrap):
        with suppress(OSError), socket.create_connection(address, 1.0):
            return bootstrap
    return None


class EmbeddedBroker:
    """One broker, or a cluster of them, on 127.0.0.1, for as long as this process lives and wants it.

    data_dir: made if missing; one broker at a time. port: the first client port, default any free one.
    nodes: fixed once a folder is in use. extra: broker settings that go before ours, for every node.
    Used as a context manager, or by start and stop; not from several threads at a time.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        nodes: int = 1,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.attached = False  # someone else's broker: stop() leaves it alone
        self.bootstrap = ""  # set by start()
        self._port, self._nodes, self._extra = port, nodes, dict(extra or {})
        self._running: list[Node] = []
        self._lock: int | None = None

    def start(self, timeout_s: float = START_S) -> str:
        """The bootstrap servers of a broker on which transactions work: an own one, or the one that already
        runs on the folder (then ``attached`` is true, and port and extra have no say).

        Blocks up to timeout_s, and the first time for the download too. Raises OperatorError with the last
        lines of the broker's log; nothing is left running then.
        """
        if self._attach():
            return self.bootstrap
        jvm = kafka_jvm.prepare()
        deadline = time.monotonic() + timeout_s
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            while (lock := try_lock(self.data_dir / "lock")) is None:
                if self._attach():
                    return self.bootstrap
                if time.monotonic() > deadline:
                    raise OperatorError(
                        f"another broker on {self.data_dir} neither got ready nor ended within {timeout_s:.0f} s."
                        f" See {self.data_dir / 'node-1' / 'server.log'}, or choose another folder, {OWN_BROKER}."
                    )
                time.sleep(0.1)
        except OSError as exc:
            raise OperatorError(f"cannot use {self.data_dir} for Kafka's data: {exc.strerror}") from exc
        self._lock = lock
        try:
            self._start_own(jvm, deadline)
        except BaseException:
            self.stop()
            raise
        return self.bootstrap

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End an own broker and wait for it: asked to first, killed after timeout_s. Data stays. Idempotent."""
        for node in self._running:
            node.ask_to_stop()
        deadline = time.monotonic() + timeout_s
        for node in self._running:
            node.join(deadline)
        self._running = []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def alive(self) -> bool:
        """Whether every node runs."""
        return running(self.data_dir) is not None if self.attached else self._dead() is None

    def jvm_pids(self) -> list[int]:
        """Process ids of the JVMs, node 1 first: for measurements, and for tests that kill one."""
        return [node.jvm_pid() for node in self._running]

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
