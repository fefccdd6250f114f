"""What a person and a service are told when Kafka is not there, is set up wrongly, or says no. Needs no broker."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import KafkaError, KafkaException

from shared.errors import Fatal, Fenced, OperatorError, Rewind, TimedOut
from shared.kafka import Deadline, Follower, Session, Writer, create_topics, group_members, list_topics, verdict
from shared.kafka.client import ask, insist, refuse, shut

Open = Callable[[Mapping[str, str]], object]
OPENERS: dict[str, Open] = {
    "session": lambda kafka: Session(kafka, name="s0", group="g", topics=["t"], budget_s=0.5),
    "transactional writer": lambda kafka: Writer(kafka, "w", transactional_id="t", budget_s=0.5),
    "follower": lambda kafka: Follower(kafka, ["t"], budget_s=0.5),
    "topics": lambda kafka: create_topics(kafka, budget_s=0.5),
    "list": lambda kafka: list_topics(kafka, budget_s=0.5),
    "members": lambda kafka: group_members(kafka, "g", budget_s=0.5),
}


@pytest.mark.parametrize("name", OPENERS)
def test_no_broker_is_said_within_the_deadline(name):
    with socket.socket() as nobody:  # bound, not listening: nobody else gets this port either
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(OperatorError, match=rf"no Kafka answers at {where} \(KAFKA_BOOTSTRAP_SERVERS\).*refused"):
            OPENERS[name]({"bootstrap.servers": where})
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("sasl.usrname", "x", 'KAFKA_SASL_USRNAME cannot be used: .*"sasl.usrname"'),
        ("security.protocol", "x", 'KAFKA_SECURITY_PROTOCOL cannot be used: Invalid value "x"'),
    ],
)
@pytest.mark.parametrize("name", OPENERS)
def test_a_wrong_setting_is_named(name, key, value, told):
    with pytest.raises(OperatorError, match=told):
        OPENERS[name]({"bootstrap.servers": "127.0.0.1:1", key: value})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True), None),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), Rewind),
        (KafkaError(KafkaError.INVALID_TXN_STATE, fatal=True), Fatal),
        (KafkaError(KafkaError._FENCED, fatal=True), Fenced),
        (KafkaError(KafkaError.FENCED_INSTANCE_ID), Fenced),
        # As a consumer tells it: another code, the reason in the text alone.
        (KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(KafkaError.FENCED_INSTANCE_ID).str()}"), Fenced),
        (KafkaError(KafkaError._FATAL, "Fatal error: Broker: Invalid session timeout"), Fatal),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), Fatal),
    ],
)
def test_what_an_error_asks_for(error, expected):
    assert verdict(error) is expected


def failing(*errors: KafkaError) -> Callable[[float], str]:
    """A call that fails so, one error a call, then succeeds."""
    left = list(errors)

    def call(_timeout_s: float) -> str:
        if left:
            raise KafkaException(left.pop(0))
        return "done"

    return call


PASSING = KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True)
REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


def test_a_passing_error_is_outlasted():
    assert ask(failing(PASSING, PASSING), Deadline(5)) == "done"
    insist(failing(PASSING, PASSING), Deadline(5))


def test_a_deadline_ends_it():
    for repeat in (ask, insist):
        with pytest.raises(TimedOut, match=r"no answer in 0\.2 s"):
            repeat(failing(*[PASSING] * 1000), Deadline(0.2))


def test_a_lasting_error_ends_it_at_once():
    for repeat in (ask, insist):
        with pytest.raises(OperatorError, match=r"not allowed: .*authorization"):
            repeat(failing(REFUSED), Deadline(60))


def test_readers_outlive_a_lost_connection_alone():
    refuse(KafkaError(KafkaError._TRANSPORT))
    refuse(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    refuse(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))  # it has no group, and needs none
    with pytest.raises(OperatorError, match="not allowed: Read on group g"):
        refuse(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), group="g")
    with pytest.raises(Fatal):
        refuse(KafkaError(KafkaError.INVALID_MSG))
    with pytest.raises(Fenced):
        refuse(KafkaError(KafkaError.FENCED_INSTANCE_ID))


def test_a_close_that_hangs_is_left_behind(caplog):
    release = threading.Event()
    try:
        shut(release.wait, budget_s=0.1)
        assert "did not close within 0.1 s" in caplog.text
    finally:
        release.set()
