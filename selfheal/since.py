"""Points in time as a person writes them: `10m` ago, an RFC 3339 time, the beginning."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from shared.errors import OperatorError

_AGO = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def since_ms(text: str, now_ms: int, option: str = "--since") -> int:
    """Unix epoch milliseconds. `beginning` is 0; a time without an offset is UTC. Raises OperatorError."""
    if text == "beginning":
        return 0
    if text == "now":
        return now_ms
    if (ago := _AGO.fullmatch(text)) is not None:
        return now_ms - round(float(ago[1]) * _MS[ago[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise OperatorError(
            f"{option} {text!r}: write how long ago (90s, 10m, 2h, 1d), a time (2026-03-01T12:00:00Z), "
            "`beginning` or `now`"
        ) from exc
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)
