"""What all clients share: settings, a deadline, and what an error asks of the caller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import confluent_kafka as ck

from shared.errors import Fatal, Fenced, OperatorError, Rewind, TimedOut
from shared.kafka.denied import Denied, denial
from shared.kafka.watchdog import WATCHDOG

T = TypeVar("T")
log = logging.getLogger("kafka")
CLOSE_S = 10.0
_ASK_S = 5.0  # one try of a question; the deadline covers all tries
_DEFAULTS = {
    "retry.backoff.ms": 10,  # the default of 100 makes each transaction of a cold broker take 90-130 ms
    "reconnect.backoff.max.ms": 1_000,
    "socket.nagle.disable": True,
    "log.connection.close": False,
    "topic.metadata.refresh.interval.ms": 10_000,  # a topic made after the subscription is seen this soon
}


class Deadline:
    """One monotonic budget shared by all calls of an operation."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        return self.left_s() == 0.0


def _fenced_instance(error: ck.KafkaError) -> bool:
    """A consumer wraps this in an error of another code, and only its text tells."""
    return error.code() == ck.KafkaError._FATAL and ck.KafkaError(ck.KafkaError.FENCED_INSTANCE_ID).str() in error.str()


def verdict(error: ck.KafkaError) -> type[Exception] | None:
    """None: call it again. Rewind: abort, seek back, carry on. Fenced, Fatal: this process must exit."""
    if error.code() in (
        ck.KafkaError._FENCED,
        ck.KafkaError.PRODUCER_FENCED,
        ck.KafkaError.FENCED_INSTANCE_ID,
    ) or _fenced_instance(error):
        return Fenced
    if error.fatal():
        return Fatal
    if error.txn_requires_abort():
        return Rewind
    return None if error.retriable() else Fatal


def passing(error: ck.KafkaError) -> bool:
    """Errors that a reader outlives: the client itself reconnects, rejoins and asks again."""
    return error.code() in (
        ck.KafkaError._TRANSPORT,
        ck.KafkaError._ALL_BROKERS_DOWN,
        ck.KafkaError._TIMED_OUT,
        ck.KafkaError._RESOLVE,
        ck.KafkaError._WAIT_COORD,
        # A group's coordinator moves, or has just begun to serve.
        ck.KafkaError.NOT_COORDINATOR,
        ck.KafkaError.COORDINATOR_NOT_AVAILABLE,
        ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
        ck.KafkaError._UNKNOWN_PARTITION,  # of a broker that has just come back
        ck.KafkaError._DESTROY_BROKER,  # the client forgets a broker, and learns of it again
        ck.KafkaError._MAX_POLL_EXCEEDED,
        ck.KafkaError._AUTO_OFFSET_RESET,
        ck.KafkaError._PARTITION_EOF,
        # A leader moves, or a topic is so new that its leader does not know it yet.
        ck.KafkaError.NOT_LEADER_FOR_PARTITION,
        ck.KafkaError.LEADER_NOT_AVAILABLE,
        ck.KafkaError.FENCED_LEADER_EPOCH,
        ck.KafkaError.UNKNOWN_LEADER_EPOCH,
        ck.KafkaError.OFFSET_NOT_AVAILABLE,
        ck.KafkaError.REPLICA_NOT_AVAILABLE,
        ck.KafkaError.REQUEST_TIMED_OUT,
        ck.KafkaError.NETWORK_EXCEPTION,
    ) or bool(error.retriable())


def refuse(error: ck.KafkaError, message: ck.Message | None = None, group: str | None = None) -> None:
    """For an error that a reader was handed in place of a record, in a message: log it and carry on, or raise Fatal,
    Fenced, OperatorError (not allowed). group: that the reader is in; the client of one without a group still asks for
    the coordinator of the name it was given, and needs no answer."""
    if error.code() == ck.KafkaError.GROUP_AUTHORIZATION_FAILED and group is None:
        return
    if (no := denial(error)) is not None:
        topic = None if message is None else message.topic()
        raise Denied(f"Read on topic {topic}" if topic else f"Read on group {group}", no.reason)
    kind = verdict(error)
    if kind is Fenced or not passing(error):
        raise (kind or Fatal)(error.str())
    log.warning("consume: %s", error.str())


def insist(call: Callable[[float], None], deadline: Deadline, what: str = "") -> None:
    """Repeat a transactional call while its error is retriable. what: the right that it needs. Raises Rewind, Fatal,
    Fenced, OperatorError (not allowed), or TimedOut: then the call may still be under way."""
    while True:
        timeout_s = max(0.1, deadline.left_s())
        try:
            with WATCHDOG.watching(timeout_s):
                return call(timeout_s)
        except ck.KafkaException as exc:
            error: ck.KafkaError = exc.args[0]
            if (no := denial(error, what)) is not None:
                raise no from exc
            kind = verdict(error)
            if kind is not None:
                raise kind(error.str()) from exc
            if deadline.passed():
                raise TimedOut(f"no answer in {deadline.seconds:g} s: {error.str()}") from exc
            time.sleep(min(0.05, deadline.left_s()))


def ask(call: Callable[[float], T], deadline: Deadline, what: str = "") -> T:
    """A question that changes nothing, repeated while its error is passing. what: the right that it needs. Raises
    Fatal, OperatorError (not allowed), TimedOut."""
    while True:
        try:
            return call(max(0.1, min(_ASK_S, deadline.left_s())))
        except ck.KafkaException as exc:
            error: ck.KafkaError = exc.args[0]
            if (no := denial(error, what)) is not None:
                raise no from exc
            if not passing(error):
                raise Fatal(error.str()) from exc
            if deadline.passed():
                raise TimedOut(f"no answer in {deadline.seconds:g} s: {error.str()}") from exc
            time.sleep(min(0.05, deadline.left_s()))


def client_config(kafka: Mapping[str, Any], client_id: str) -> dict[str, Any]:
    """Our defaults, what the operator gave over them, and the client's name."""
    return {**_DEFAULTS, **kafka, "client.id": client_id, "logger": log}


def open_client(kind: Callable[[dict[str, Any]], T], config: Mapping[str, Any]) -> T:
    """A client of this kind. Raises OperatorError, which names the setting that librdkafka does not take."""
    try:
        return kind(dict(config))
    except ck.KafkaException as exc:
        reason = exc.args[0].str()
        blamed = [
            f"KAFKA_{key.upper().replace('.', '_')}" for key in config if f'"{key}"' in reason or f"{key} " in reason
        ]
        raise OperatorError(f"{blamed[0] if blamed else 'a KAFKA_* setting'} cannot be used: {reason}") from exc


class Complaints:
    """What a client last said about its connections: a bare time-out does not tell a wrong port from a wrong
    password. Goes into its config as error_cb, which is called when the client is polled."""

    def __init__(self) -> None:
        self.last = ""

    def __call__(self, error: ck.KafkaError) -> None:
        if error.code() != ck.KafkaError._ALL_BROKERS_DOWN or not self.last:
            self.last = error.str()


@contextmanager
def first_contact(kafka: Mapping[str, Any], client: Any, complaints: Complaints) -> Iterator[None]:
    """Around the first calls of a client: where no broker answers in time, raises OperatorError with the reason."""
    try:
        yield
    except TimedOut as exc:
        client.poll(0)
        where = kafka.get("bootstrap.servers")
        why = str(complaints.last or exc)
        if "brokers are down" in why:  # all that is said where TLS is wanted and none is spoken, or the reverse
            why += "; is it up, and does KAFKA_SECURITY_PROTOCOL say what it speaks?"
        raise OperatorError(f"no Kafka answers at {where} (KAFKA_BOOTSTRAP_SERVERS): {why}") from exc


def shut(close: Callable[[], object], budget_s: float = CLOSE_S) -> None:
    """Run a client's close, which can hang, for at most budget_s; after that the process ends without it."""
    closer = threading.Thread(target=close, name="kafka-close", daemon=True)
    closer.start()
    closer.join(budget_s)
    if closer.is_alive():
        log.warning("a client did not close within %g s; left behind", budget_s)
