"""A client without brokers, told from a broker that is away."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from shared.errors import Fatal, TimedOut
from shared.kafka import Deadline, Fetcher, Follower, closing, pulse
from shared.kafka.pulse import Pulse, lost
from shared.records import OffsetRange
from shared.topics import topic_name

NOBODY = {"bootstrap.servers": "127.0.0.1:1"}


class Deaf:
    """As a client is that has forgotten its brokers."""

    def list_topics(self, topic: str, /, *, timeout: float) -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def assign(self, _partitions: object) -> None:
        """Nobody is asked."""

    def unassign(self) -> None:
        """Nor here."""


class Sound:
    def list_topics(self, topic: str, /, *, timeout: float) -> None:
        """It answers."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pulse, "QUIET_S", 0.0)
    monkeypatch.setattr(pulse, "_ANSWER_S", 1.0)


@pytest.mark.broker
def test_no_answer_where_a_fresh_client_gets_one_is_fatal_the_second_time(kafka, prefix):
    beat = Pulse(kafka, Deaf(), topic_name("events", prefix))
    beat.check()
    beat.heard()
    beat.check()
    with pytest.raises(Fatal, match="lost its brokers"):
        beat.check()


def test_a_broker_that_is_away_is_waited_for():
    beat = Pulse(NOBODY, Deaf(), "events")
    for _ in range(3):
        beat.check()
    assert not lost(NOBODY, Sound(), "events")


@pytest.mark.broker
def test_a_quiet_follower_asks_and_goes_on(kafka, prefix):
    with closing(Follower(kafka, [topic_name("events", prefix)])) as follower:
        for _ in range(4):
            assert follower.take(0.05) == []


@pytest.mark.broker
def test_a_fetcher_that_has_lost_its_brokers_does_not_call_rows_late(kafka, prefix, monkeypatch):
    wanted = OffsetRange(topic=topic_name("transactions", prefix), partition=0, start=0, end=1)

    def late(*_: object) -> None:
        raise TimedOut("no answer")

    with closing(Fetcher(kafka, "test")) as fetcher:
        monkeypatch.setattr(fetcher, "_read", late)
        first = fetcher._consumer
        with pytest.raises(TimedOut):
            fetcher.fetch(wanted, Deadline(1.0))
        sound = fetcher._consumer
        assert sound is not first  # the next try has a client of its own
        fetcher._consumer = Deaf()
        with pytest.raises(Fatal, match="lost its brokers"):
            fetcher.fetch(wanted, Deadline(1.0))
        fetcher._consumer = sound
