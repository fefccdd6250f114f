"""Whether the cause of a dead letter is real: a valid batch may become one for a few reasons only."""

from __future__ import annotations

import numpy as np

from audit.adapters import Adapters
from audit.answers import Answered
from audit.contract import ANSWER_ROOM, MAX_ID, MAX_VALUE_BYTES, Input, names_twice
from audit.history import History
from audit.network import FIRST_VERSION, Adapter, Bundle, probabilities

ADAPTERS_KEPT = 1_000  # by a scorer, the newest
GROWTH = 30  # characters that an answer may take for each row at most: two probabilities, rule and flag


def unreal(answered: Answered, bundle: Bundle, adapters: Adapters, history: History, wait_s: float) -> str:
    """Empty where the dead letter has a cause. wait_s: longest that a scorer may not know of an adapter."""
    letter, batch = answered.letter, answered.batch
    assert letter is not None
    if batch is None or names_twice(answered.record.value):
        return ""
    field = letter.record.headers.get("field", b"").decode("utf-8", "replace")
    reason = letter.record.headers.get("reason", b"").decode("utf-8", "replace")
    named = answered.record.headers.get("adapter")
    version = None if named is None else named.decode("utf-8", "replace")
    if field == "header:adapter":
        return _adapter_there(version, letter.record.at_ms, adapters, wait_s)
    if _too_wide(batch, len(answered.record.value or b"")):
        return ""
    tried = [adapters.get(v) for v in (history.near(letter.record.at_ms) if version is None else [version])]
    if any(_not_finite(batch, bundle, adapter) for adapter in tried if adapter is not None):
        return ""
    return f"{answered.record.where} is a valid batch; the letter says {field + ': ' if field else ''}{reason[:80]}"


def _adapter_there(version: str | None, at_ms: int, adapters: Adapters, wait_s: float) -> str:
    if version is None:
        return "blames the header adapter, which its input does not have"
    if not 1 <= len(version) <= MAX_ID:
        return ""
    if version == FIRST_VERSION:
        return f"says that {FIRST_VERSION} was not there, which every scorer has"
    made = adapters.published.get(version)
    if made is None or made.record.at_ms > at_ms - wait_s * 1000:
        return ""
    newer = sum(p.record.at_ms >= made.record.at_ms for p in adapters.published.values())
    if newer > ADAPTERS_KEPT:
        return ""
    return f"says that {version} was not there, which was published {(at_ms - made.record.at_ms) / 1000:.0f} s before"


def _too_wide(batch: Input, size: int) -> bool:
    """Whether an answer might not fit a record: it repeats the ids, and of the rows at most all as conflicts."""
    ids = sum(len(i.encode()) + 3 for i in batch.ids)
    return max(ids + GROWTH * len(batch.ids) * 3, size) > (MAX_VALUE_BYTES - ANSWER_ROOM) * 0.9


def _not_finite(batch: Input, bundle: Bundle, adapter: Adapter) -> bool:
    """In float32, as scorers compute."""
    found = probabilities(batch.x, bundle, [adapter], np.float32)
    return not all(np.isfinite(p).all() for p in found)
