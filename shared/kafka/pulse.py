"""Tells a client that has lost its brokers for good from a broker that is away.

librdkafka 2.16 forgets every broker it knows on a metadata answer without brokers, as one gives that has just begun to
serve, and asks no more (its issue 5301, reported for 2.13; a fix is proposed and not merged): a consumer then waits for
ever, alive and without a word. A fresh process finds the brokers again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import confluent_kafka as ck

from shared.errors import Fatal
from shared.kafka.client import Complaints
from shared.kafka.reading import closing, open_reader

QUIET_S = 10.0  # without a record, before it asks whether anybody is there at all
_ANSWER_S = 2.0
_MISSED_MAX = 2  # one may be a broker that came back between the two questions


class Asking(Protocol):
    """A consumer."""

    def list_topics(self, topic: str, /, *, timeout: float) -> Any: ...


class Pulse:
    """Of one consumer, which belongs to the thread that calls this."""

    def __init__(self, kafka: Mapping[str, Any], client: Asking, topic: str) -> None:
        self._kafka, self._client, self._topic = kafka, client, topic
        self._since, self._missed = time.monotonic(), 0

    def heard(self) -> None:
        """A record came."""
        self._since, self._missed = time.monotonic(), 0

    def check(self) -> None:
        """Ask, if it has been quiet for long. Raises Fatal: this client gets no answer where a fresh one does."""
        if time.monotonic() - self._since < QUIET_S:
            return
        self._missed = self._missed + 1 if lost(self._kafka, self._client, self._topic) else 0
        self._since = time.monotonic()
        if self._missed >= _MISSED_MAX:
            raise Fatal(f"the client that reads {self._topic} has lost its brokers, and a fresh one finds them")


def lost(kafka: Mapping[str, Any], client: Asking, topic: str) -> bool:
    """Whether a client gets no answer where a fresh one does; blocks for up to 4 s."""
    if _answered(client, topic):
        return False
    with closing(open_reader(kafka, "pulse", Complaints())) as fresh:
        return _answered(fresh, topic)


def _answered(client: Asking, topic: str) -> bool:
    try:
        client.list_topics(topic, timeout=_ANSWER_S)
    except ck.KafkaException:
        return False
    return True
