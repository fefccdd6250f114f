"""Lockstep: the next batch goes out when the monitor says that this one is settled, and under which version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.errors import OperatorError, TimedOut
from shared.kafka import Deadline, Follower
from shared.records import Metrics, decode
from shared.telemetry import epoch_ms
from shared.topics import topic_name

_LOOK_S = 0.1
_CLOCK_SKEW_MS = 60_000
_START = datetime(2026, 1, 1, tzinfo=UTC)


def stream_time(k: int) -> str:
    """created_at of batch k in lockstep: the stream's own time, one second a batch."""
    return (_START + timedelta(seconds=k)).isoformat().replace("+00:00", "Z")


class Settler:
    """Follows metrics and dead-letters of one pipeline, from the end as it is before the first batch.

    Raises OperatorError: no such topics. TimedOut: their ends were not found within settle_s.
    """

    def __init__(self, kafka: Mapping[str, Any], prefix: str, settle_s: float) -> None:
        self._kafka, self._prefix, self._settle_s = kafka, prefix, settle_s
        self._metrics, self._dead = topic_name("metrics", prefix), topic_name("dead-letters", prefix)
        self._follower = Follower(
            kafka, [self._metrics, self._dead], name="producer-lockstep", budget_s=settle_s, from_end=True
        )
        deadline = Deadline(settle_s)
        while not self._follower.caught_up:  # only now is "from the end" a place, not a plan
            if deadline.passed():
                self.close()
                raise TimedOut(f"could not find the end of {self._metrics} within {settle_s:g} s")
            self._follower.take(_LOOK_S)

    def wait(self, batch_id: str, value: bytes, stop: Callable[[], bool]) -> str | None:
        """The version active after this batch, once it is settled; None: asked to stop. value: the bytes sent.

        Raises OperatorError after settle_s, or at once when the batch became a dead letter: what did not happen.
        """
        sent_ms, deadline = epoch_ms(), Deadline(self._settle_s)
        row: Metrics | None = None
        while not stop():
            for record in self._follower.take(min(_LOOK_S, deadline.left_s())):
                if record.topic == self._dead and record.value == value:
                    raise OperatorError(f"{batch_id} became a dead letter: {_reason(record.headers)}")
                if record.topic == self._metrics and record.key == batch_id.encode():
                    row = decode(Metrics, record.value)
            if row is not None and row.settled:
                return row.next_version
            if deadline.passed():
                raise OperatorError(
                    f"{batch_id} was not settled within {self._settle_s:g} s (PRODUCER_SETTLE_S): "
                    + self._missing(batch_id, row, sent_ms)
                )
        return None

    def close(self) -> None:
        self._follower.close()

    def _missing(self, batch_id: str, row: Metrics | None, sent_ms: int) -> str:
        """What has not happened, as far as the topics tell."""
        if row is not None and row.labelled < row.rows:
            return f"labels came for {row.labelled} of its {row.rows} transactions; lockstep needs them all"
        if row is not None:
            return f"its heal has no outcome (action {row.action!r}): is the healer running (`selfheal heal`)?"
        if self._predicted(batch_id, sent_ms):
            return "it has a prediction, and no metrics row: is the monitor running (`selfheal monitor`)?"
        return "it has no prediction: is a scorer running (`selfheal score`)?"

    def _predicted(self, batch_id: str, sent_ms: int) -> bool:
        topic = topic_name("predictions", self._prefix)
        with closing(Follower(self._kafka, [topic], name="producer-why", since_ms=sent_ms - _CLOCK_SKEW_MS)) as found:
            return any(record.key == batch_id.encode() for record in found.until_end(self._settle_s))


def _reason(headers: Mapping[str, bytes]) -> str:
    reason, field = (headers.get(name, b"").decode("utf-8", "replace") for name in ("reason", "field"))
    return f"{field}: {reason}" if field else reason
