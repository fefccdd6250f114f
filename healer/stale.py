"""Which of the requests that are waiting are still worth a fit: after a healer was down, not each of them.

A request that has waited for longer than HEALER_STALE_S, with a newer one for the same base, policy and purpose behind
it, is answered heal-failed (superseded): the monitor has given it up, and what it would come to is nobody's any more.
The newest is always answered on its merits, and so is everything that waited for less. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.errors import Refused
from shared.kafka import Taken
from shared.records import HealRequest, decode

WAITING_MAX = 200  # requests looked at together


class Turn(NamedTuple):
    """now: what to answer in one transaction, each with the refusal it gets where it is stale; at most one, the last,
    takes a fit. later: what to take again."""

    now: list[tuple[Taken, Refused | None]]
    later: Sequence[Taken]


def plan(waiting: Sequence[Taken], now_ms: int, stale_s: float, bundle: str) -> Turn:
    """waiting: as they were taken, oldest first. now_ms: Unix epoch. bundle: a request for another one, which is going
    to be refused itself, takes nobody's place."""
    asked = [_request(record) for record in waiting]
    newest = {_what(r): i for i, r in enumerate(asked) if r is not None and r.bundle == bundle}
    now: list[tuple[Taken, Refused | None]] = []
    for i, (record, request) in enumerate(zip(waiting, asked, strict=True)):
        waited_s = (now_ms - record.timestamp_ms) / 1000
        heir = i if request is None else newest.get(_what(request), i)
        if request is None or heir <= i or waited_s <= stale_s:
            return Turn([*now, (record, None)], waiting[i + 1 :])
        instead = asked[heir]
        by = instead.request_id if instead is not None else ""
        why = f"superseded: it waited {waited_s:.0f} s, and {by} asks for the same base (HEALER_STALE_S {stale_s:g})"
        now.append((record, Refused(why)))
    return Turn(now, [])


def _request(record: Taken) -> HealRequest | None:
    try:
        return decode(HealRequest, record.value)
    except Refused:
        return None  # becomes a dead letter when its turn comes


def _what(request: HealRequest) -> tuple[str, str, str]:
    return request.base_version, request.policy, request.purpose
