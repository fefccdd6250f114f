"""The load of a chaos run: nobody is held to what a client was not told of, and another client takes its place."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from confluent_kafka import Message

from selfheal.chaos.load import Sender
from shared.errors import Fatal
from shared.kafka import Out, Writer
from shared.topics import topic_name


def test_a_client_that_lost_its_way_is_replaced(
    kafka: dict[str, str], prefix: str, read_topic: Callable[..., list[Message]], monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, lost = Writer.flush, [True]
    used: list[Writer] = []

    def flushed(writer: Writer) -> None:
        used.append(writer)
        flush(writer)
        if lost:
            lost.clear()
            raise Fatal("1 records not acknowledged in 60 s")

    monkeypatch.setattr(Writer, "flush", flushed)
    journal, topic = io.StringIO(), topic_name("transactions", prefix)
    sender = Sender(kafka, journal)
    for key in ("a", "b"):
        sender.send(Out(topic, key, b"{}"), key)
        sender.settle()
    sender.send(Out(topic, "c", b"{}"), "c")
    sender.settle(every_s=60)  # not yet
    assert journal.getvalue() == "b\n"
    sender.settle()
    assert journal.getvalue() == "b\nc\n"
    assert used[0] is not used[1]
    assert used[1] is used[2]
    assert {m.key() for m in read_topic("transactions")} == {b"a", b"b", b"c"}
