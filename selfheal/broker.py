"""A real Apache Kafka on this machine, from Python packages alone: started, found again, never left behind.

For Linux and macOS. In a data folder, kept between runs:

    lock                held by every living process of the broker; the kernel frees it, so it is never stale
    broker.json         where to reach it; there from ready to the begin of the stop, believed only while locked
    node-1/             server.properties, server.log (server.log.1: the run before), log/ with the data
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from selfheal.broker_config import HOST, free_ports
from selfheal.broker_node import Node, configure
from selfheal.broker_ready import addresses, wait_ready
from selfheal.flock import is_locked, try_lock
from selfheal.kafka_jars import KAFKA_VERSION, OWN_BROKER
from selfheal.kafka_jvm import Jvm, prepare
from shared.errors import OperatorError, TimedOut

START_S, STOP_S = 60.0, 15.0
PORT_TRIES = 3


def running(data_dir: Path) -> str | None:
    """The bootstrap servers of the broker that runs on this folder, if one does and takes connections."""
    try:
        bootstrap = str(json.loads((data_dir / "broker.json").read_text("utf-8"))["bootstrap"])
    except FileNotFoundError:
        return None
    if is_locked(data_dir / "lock"):
        for address in addresses(bootstrap):
            with suppress(OSError), socket.create_connection(address, 1.0):
                return bootstrap
    return None


class EmbeddedBroker:
    """One broker, or a cluster of them, on 127.0.0.1, for as long as this process lives and wants it.

    data_dir: made if missing; one broker at a time. port: of the first client listener, default any free one.
    nodes: up to 9, fixed once a folder is in use. extra: broker settings that go before ours, for every node.
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
        self.nodes = [Node(self.data_dir, number) for number in range(1, nodes + 1)]
        self.attached = False  # someone else's broker: stop() leaves it alone
        self.bootstrap = ""  # set by start()
        self._port, self._extra = port, dict(extra or {})
        self._lock: int | None = None

    def start(self, timeout_s: float = START_S) -> str:
        """The bootstrap servers of a broker on which transactions work: an own one, or the one that already
        runs on the folder (then ``attached`` is true, and port and extra have no say).

        Blocks up to timeout_s, and the first time for the download too. Raises OperatorError with the
        last telling lines of the broker's log, and leaves nothing running.
        """
        if self._attach():
            return self.bootstrap
        jvm = prepare()
        deadline = time.monotonic() + timeout_s
        try:
            self._lock = self._claim(deadline, timeout_s)
            if self._lock is not None:
                self._start_own(jvm, self._lock, deadline)
        except BaseException as exc:
            self.stop()
            if isinstance(exc, OSError):
                raise OperatorError(f"cannot use {self.data_dir} for Kafka's data: {exc.strerror}") from exc
            raise
        return self.bootstrap

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End an own broker and wait for it: asked first, killed after timeout_s. Data stays. Idempotent."""
        self._end_nodes(timeout_s)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def relaunch(self, number: int) -> None:
        """Start one node of an own, running cluster again (killed first, where it still runs); does not wait until it
        has caught up."""
        if self._lock is None:
            raise OperatorError(f"no broker of ours runs on {self.data_dir}: start() it first")
        node = self.nodes[number - 1]
        node.join(time.monotonic())
        node.launch(prepare(), self._lock, STOP_S)

    def alive(self) -> bool:
        """Whether all of it runs."""
        return running(self.data_dir) is not None if self.attached else all(n.alive() for n in self.nodes)

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _attach(self) -> bool:
        """Whether a broker of another owner runs here, and is now ours to use."""
        self.bootstrap = running(self.data_dir) or ""
        self.attached = bool(self.bootstrap)
        return self.attached

    def _claim(self, deadline: float, timeout_s: float) -> int | None:
        """The folder's lock, or None if its holder's broker became ready and was attached to."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        while (lock := try_lock(self.data_dir / "lock")) is None:
            if self._attach():
                return None
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"another broker on {self.data_dir} neither got ready nor ended in {timeout_s:.0f} s:"
                    f" see {self.nodes[0].log}; choose another folder, {OWN_BROKER}"
                )
            time.sleep(0.1)
        return lock

    def _end_nodes(self, timeout_s: float = STOP_S) -> None:
        deadline = time.monotonic() + timeout_s
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.join(deadline)

    def _start_own(self, jvm: Jvm, lock: int, deadline: float) -> None:
        (self.data_dir / "broker.json").unlink(missing_ok=True)  # of a killed run
        for left in reversed(range(PORT_TRIES)):
            ports = free_ports(len(self.nodes), self._port)
            cluster_id = configure(jvm, self.nodes, ports, self._extra, deadline - time.monotonic())
            bootstrap = ",".join(f"{HOST}:{pair.client}" for pair in ports)
            for node in self.nodes:
                node.launch(jvm, lock, STOP_S)
            try:
                left_s = deadline - time.monotonic()
                wait_ready(bootstrap, left_s, nodes=len(ports), cluster_id=cluster_id, alive=self.alive)
            except TimedOut as exc:
                blame = next((node for node in self.nodes if not node.alive()), self.nodes[0])
                words = blame.last_words()
                if left and self._port is None and "Address already in use" in words:
                    self._end_nodes()
                    continue
                message = f"Apache Kafka did not start: {exc}. From {blame.log}:\n{words}"
                raise OperatorError(message) from exc
            part = self.data_dir / "broker.part"
            part.write_text(json.dumps({"bootstrap": bootstrap, "owner_pid": os.getpid()}), "utf-8")
            part.replace(self.data_dir / "broker.json")
            self.bootstrap = bootstrap
            return


def serve(
    data_dir: Path,
    port: int | None = None,
    *,
    nodes: int = 1,
    extra: Mapping[str, str] | None = None,
    timeout_s: float = START_S,
) -> None:
    """Run a broker until SIGINT, SIGTERM or SIGHUP: its bootstrap servers are the one line on stdout.

    If one already runs on the folder, says where and returns at once. Raises OperatorError if it cannot be
    started, or ends by itself. For the main thread.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, signal.default_int_handler) for each in signals}
    broker = EmbeddedBroker(data_dir, port=port, nodes=nodes, extra=extra)
    try:
        broker.start(timeout_s)
        sys.stdout.write(f"{broker.bootstrap}\n")
        sys.stdout.flush()
        if broker.attached:
            sys.stderr.write(f"already running on {broker.data_dir}\n")
            return
        sys.stderr.write(
            f"Apache Kafka {KAFKA_VERSION}, data in {broker.data_dir}, Ctrl-C ends it. Elsewhere:\n"
            f"export KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap}\n"
        )
        while broker.alive():
            time.sleep(0.2)
        node = next((node for node in broker.nodes if not node.alive()), broker.nodes[0])
        raise OperatorError(f"Apache Kafka ended by itself. From {node.log}:\n{node.last_words()}")
    except KeyboardInterrupt:
        pass
    finally:
        broker.stop()
        for each, handler in before.items():
            signal.signal(each, handler)
