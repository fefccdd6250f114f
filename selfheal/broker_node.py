"""One node of an embedded broker: its folder, its format, its process."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from selfheal import broker_guard
from selfheal.broker_config import Ports, properties
from selfheal.kafka_jvm import BROKER, STORAGE_TOOL, Jvm
from shared.errors import OperatorError

TAIL_LINES = 12


class Node:
    """Node ``number`` (from 1) of the broker in ``data_dir``; at most one process at a time."""

    def __init__(self, data_dir: Path, number: int) -> None:
        self.data_dir = data_dir
        self.number = number
        self.folder = data_dir / f"node-{number}"
        self.log = self.folder / "server.log"
        self._guard: subprocess.Popen[bytes] | None = None

    def launch(self, jvm: Jvm, lock_fd: int, grace_s: float) -> None:
        """Start the broker's process and its guard on the server.properties in the folder; does not wait."""
        train = self.folder / "start-up.jsa" if self.number == 1 and jvm.can_train else None
        spec: broker_guard.Spec = {
            "command": jvm.command(BROKER, "server.properties", train=train),
            "cwd": str(self.folder),
            "grace_s": grace_s,
            "state": str(self.data_dir / "broker.json"),
            "lock_fd": lock_fd,
            "train": None if train is None else str(train),
            "archive": str(jvm.archive),
        }
        with suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", broker_guard.__file__, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock_fd],
                start_new_session=True,  # a Ctrl-C in the terminal is not for the broker
            )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._guard is not None and self._guard.poll() is None

    def jvm_pid(self) -> int:
        """The process id of the JVM. Raises ProcessLookupError when there is none."""
        with suppress(psutil.NoSuchProcess):
            if self._guard is not None and (children := psutil.Process(self._guard.pid).children()):
                return int(children[0].pid)
        raise ProcessLookupError(f"node {self.number} has no process")

    def ask_to_stop(self) -> None:
        """The guard sees the end of its stdin; does not wait."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()

    def join(self, deadline: float) -> None:
        """Wait for the end of the process until ``deadline`` (monotonic clock), then kill it."""
        if self._guard is None:
            return
        try:
            self._guard.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.kill(self.jvm_pid(), 9)
            self._guard.wait()
        self._guard = None

    def last_words(self) -> str:
        """The last lines of this run's log that tell something: no chatter, no stack frames."""
        try:
            with self.log.open(encoding="utf-8", errors="replace") as log:
                telling = (line for line in log if not line[:1].isspace() and " INFO " not in line)
                return "".join(deque(telling, TAIL_LINES)).rstrip()
        except FileNotFoundError:
            return ""


def configure(
    jvm: Jvm, nodes: Sequence[Node], ports: Sequence[Ports], extra: Mapping[str, str], timeout_s: float
) -> str:
    """Write every node's settings, formatting the storage the first time; returns the cluster's id.

    Blocks for a Java process or more (1 s) when formatting. An interrupted format leaves nothing behind.
    """
    present = {path.name for path in nodes[0].data_dir.glob("node-?")}
    if present and present != {node.folder.name for node in nodes}:
        raise OperatorError(
            f"{nodes[0].data_dir} holds a broker of {len(present)} nodes, not {len(nodes)}: choose another folder"
        )
    targets = {node: node.folder if present else node.folder.with_suffix(".part") for node in nodes}
    for node, target in targets.items():
        if not present:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
        (target / "server.properties").write_text(properties(node.number, ports, extra), "ascii")
    if present:
        return _cluster_id(nodes[0].folder)
    cluster_id = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")  # no leading "-"
    command = jvm.command(STORAGE_TOOL, "format", "-t", cluster_id, "-c", "server.properties")
    for target in targets.values():
        _format(command, target, timeout_s)
    for node, target in targets.items():
        target.rename(node.folder)
    return cluster_id


def _format(command: list[str], folder: Path, timeout_s: float) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=timeout_s, text=True)
    except subprocess.TimeoutExpired as exc:
        raise OperatorError(f"formatting {folder} took longer than {timeout_s:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        lines = f"{exc.stdout}\n{exc.stderr}".strip().splitlines()[-TAIL_LINES:]
        raise OperatorError("Kafka could not format {}:\n{}".format(folder, "\n".join(lines))) from exc


def _cluster_id(folder: Path) -> str:
    try:
        lines = (folder / "log" / "meta.properties").read_text("utf-8").splitlines()
        return next(line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id="))
    except (OSError, StopIteration) as exc:
        raise OperatorError(f"{folder} is no longer a broker's data: move it away and start again") from exc
