"""A service in a thread of the test: stopped cleanly at the end, and its failure is the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from healer import service as healer_service
from monitor import service as monitor_service
from scorer import service as scorer_service
from shared.bundle import Bundle
from shared.settings import HealerSettings, MonitorSettings, ScorerSettings, ServiceSettings, load

SERVICES: dict[str, tuple[ModuleType, type[ServiceSettings]]] = {
    "scorer": (scorer_service, ScorerSettings),
    "healer": (healer_service, HealerSettings),
    "monitor": (monitor_service, MonitorSettings),
}


@contextmanager
def catching(serve: Callable[[Callable[[], bool]], None], patience_s: float) -> Iterator[list[BaseException]]:
    """serve(stop) until the block is left, and ended within so long after it; what it raised is for the test."""
    stop, raised = threading.Event(), list[BaseException]()

    def body() -> None:
        try:
            serve(stop.is_set)
        except BaseException as exc:  # noqa: BLE001 - shown by the test's own thread
            raised.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(patience_s)
        assert not thread.is_alive()


@contextmanager
def in_thread(serve: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
    """serve(stop) until the block is left; that it raises nothing is part of the test."""
    with catching(serve, 30) as raised:
        yield
    assert raised == []


@contextmanager
def running(name: str, kafka: Mapping[str, Any], prefix: str, bundle: Bundle, **more: Any) -> Iterator[None]:
    """The service of this name with these settings."""
    module, kind = SERVICES[name]
    settings = load(kind, prefix=prefix, session_timeout_ms=6_000, **more)
    with in_thread(lambda stop: module.run(settings, kafka, bundle, stop)):
        yield
