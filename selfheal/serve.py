"""Runs one service in this process until it is told to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from selfheal.cli_options import OWN_HOST
from selfheal.memory import give_back_now_and_then
from selfheal.process import INTERRUPTED, Stop, end_with_parent, one_thread, settle, stop_on_signals
from shared.crash import CRASH_ENV, arm
from shared.errors import OperatorError
from shared.settings import ServiceSettings, load

TURN_S = 60.0  # of a service's loop, and twice its budget for Kafka on top: far more than any turn takes
S = TypeVar("S", bound=ServiceSettings)


class Service(Protocol):
    """What scorer.service, healer.service and monitor.service are: blocks until stop() is true."""

    def run(self, settings: Any, kafka: Mapping[str, Any], bundle: Any, stop: Callable[[], bool]) -> None: ...


def begin(kind: type[S], flags: Mapping[str, Any]) -> tuple[S, Stop]:
    """Settings, logs, signals, the parent's watch, memory: what every service does first. Raises OperatorError."""
    one_thread()
    stop = stop_on_signals()
    end_with_parent(stop)
    give_back_now_and_then()
    settings = load(kind, **slot_named(flags))
    arm(os.environ.get(CRASH_ENV, ""))
    from shared.telemetry import set_up_logging

    set_up_logging(settings.log_level)
    return settings, stop


def serve(room: str, kind: type[ServiceSettings], data_dir: Path, bundle: Path | None, **flags: Any) -> int:
    """Run the service of a room (scorer, healer, monitor); the exit code. flags: settings given on the command
    line, None where they were not. Raises OperatorError, Fatal, Fenced."""
    from selfheal.where import find_bundle, find_kafka

    settings, stop = begin(kind, {**flags, "bundle": find_bundle(bundle, data_dir)})
    kafka = find_kafka(data_dir)
    from shared import bundle as bundles
    from shared.kafka.watchdog import WATCHDOG
    from shared.topics import check_prefix

    check_prefix(settings.prefix)
    service: Service = import_module(f"{room}.service")
    loaded = bundles.load(settings.bundle)
    check_rights(kafka, room, settings.prefix)
    settle()
    service.run(settings, kafka, loaded, WATCHDOG.kept(stop, TURN_S + 2 * settings.commit_budget_s))
    return INTERRUPTED if stop.interrupted else 0


def check_rights(kafka: Mapping[str, Any], room: str, prefix: str) -> None:
    """Before anything is done: raises OperatorError, which names every operation on a topic that this service needs
    and the cluster does not allow. Groups and transactional ids show when they are used."""
    from shared.kafka import topic_operations
    from shared.rights import NEEDS, rights

    needed = [r for role in NEEDS if role == room for r in rights(role, prefix) if r.resource == "topic"]
    allowed = topic_operations(kafka, {r.name for r in needed})
    lacking = [
        f"{r.operation} on topic {r.name}"
        for r in needed
        if r.operation.upper() not in allowed.get(r.name, {"READ", "WRITE"})
    ]
    if lacking:
        raise OperatorError(
            f"{room} is not allowed: {', '.join(lacking)}; `selfheal acl {room}` has the rights it needs"
        )


def slot_named(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags, with the host's name where the slot is to be that."""
    named = dict(flags)
    if named.get("slot") == OWN_HOST:
        named["slot"] = socket.gethostname()
    return named
