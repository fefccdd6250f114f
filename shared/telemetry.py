"""Logging set-up, the clock, and the sign of life that health checks read."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

HEALTH_FILE_ENV = "SELFHEAL_HEALTH_FILE"
Clock = Callable[[], str]


def wall_clock() -> str:
    """Now, as RFC 3339 in UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def epoch_ms() -> int:
    """Now, as Unix epoch milliseconds."""
    return int(time.time() * 1000)


def get_logger(service: str) -> structlog.stdlib.BoundLogger:
    """A logger that carries the service's name; set up the output once with set_up_logging."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(service).bind(service=service)
    return logger


def set_up_logging(level: str = "INFO", *, as_json: bool | None = None) -> None:
    """Log lines on stderr: JSON, or readable where stderr is a terminal. Called by main functions only."""
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class Heartbeat:
    """Touches $SELFHEAL_HEALTH_FILE at most once a second, where it is set; `selfheal health` reads its age."""

    def __init__(self) -> None:
        name = os.environ.get(HEALTH_FILE_ENV)
        self._path = Path(name) if name else None
        self._next = 0.0

    def beat(self) -> None:
        """Call once a turn; costs one clock read when it is not due."""
        if self._path is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()


def heartbeat_age_s(path: Path) -> float | None:
    """Seconds since the last beat, None where there never was one."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return None
