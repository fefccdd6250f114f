"""Following a topic: lines for a person, JSON for a program, filters, and an end."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal.tail import ALL, Filter, as_json
from selfheal.tail_lines import line
from shared.kafka import Out, Taken, Writer
from shared.records import Event, Metrics, encode
from shared.telemetry import wall_clock
from shared.topics import TOPICS, Name, topic_name

plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "batch_id", "transaction_ids", "labels", "flag", "probability", "shadow_probability", "amounts", "transactions",
    "state", "kind", "message", "values", "z_score", "acc_lift", "candidate_version", "verdict",
    "purpose",
)  # fmt: skip
bodies = plain_json | st.dictionaries(st.sampled_from(FIELDS), plain_json, max_size=8)


def record(
    value: bytes | None, *, key: bytes | None = b"k", headers: Mapping[str, bytes] | None = None, topic: str = "t"
) -> Taken:
    return Taken(topic, 1, 7, 1_800_000_000_000, key, value, dict(headers or {}))


@given(st.sampled_from(sorted(TOPICS)), bodies, st.dictionaries(st.text(max_size=5), st.binary(max_size=9), max_size=2))
def test_whatever_stands_on_a_topic_is_shown(name: Name, body: object, headers: dict[str, bytes]) -> None:
    """In one line that no terminal obeys, and as one JSON object."""
    taken = record(orjson.dumps(body), headers=headers)
    assert line(name, taken).plain.isprintable()
    shown = orjson.loads(as_json(name, taken))
    assert (shown["_topic"], shown["_partition"], shown["_offset"]) == ("t", 1, 7)


@given(st.sampled_from(sorted(TOPICS)), st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=9))
def test_bytes_that_are_no_record_are_shown_too(name: Name, value: bytes | None, key: bytes | None) -> None:
    assert line(name, record(value, key=key)).plain.isprintable()
    assert isinstance(orjson.loads(as_json(name, record(value, key=key))), dict)


def test_lines_speak_in_the_words_of_their_topic() -> None:
    row = Metrics(
        batch_idx=4, batch_id="b4", timestamp="t", rows=100, z_score=1.25, n_conflicts=7, accuracy_healed=0.72,
        accuracy_shadow=0.45, acc_lift=0.27, f1_healed=0.3, state="DRIFTING", action="heal", next_version="v3",
    )  # fmt: skip
    text = line("metrics", record(encode(row))).plain
    for part in ("4 DRIFTING", "b4", "z 1.250", ".720 (frozen .450, +.270)", "by v1, then v3", "heal"):
        assert part in text
    dead = {"reason": b"not a finite number", "field": b"features[3][2]", "service": b"scorer",
            "source.topic": b"p.transactions", "source.partition": b"0", "source.offset": b"12"}  # fmt: skip
    text = line("dead-letters", record(b"\x1b[31mjunk", headers=dead)).plain
    assert "p.transactions[0] 12" in text
    assert "features[3][2]: not a finite number (scorer)" in text


def test_events_of_a_diagnosis_name_their_verdict_in_its_colour() -> None:
    def shown(kind: str, **facts: object) -> tuple[str, str]:
        text = line("events", record(encode(Event(at="t", kind=kind, message="what", service="healer", facts=facts))))
        return text.plain, str(text.spans[-2].style)

    assert shown("diagnosed", verdict="outage")[0].endswith("diagnosed          healer    [outage] what")
    assert shown("diagnosed", verdict="outage")[1] == "bold red"
    assert shown("diagnosed", verdict="harmless")[1] == "bold cyan"
    assert shown("heal-finished", verdict="units", purpose="diagnose")[1] == "bold cyan"
    plain, style = shown("heal-finished", purpose="learn")
    assert plain.endswith("heal-finished      healer    what")
    assert style == "dim cyan"
    assert shown("alarm")[1] == "bold yellow"


def test_json_of_bytes() -> None:
    text, raw = (as_json("dead-letters", record(v, headers={"reason": b"why"})) for v in (b"plain", b"\xff\x00"))
    assert orjson.loads(text)["_value"] == "plain"
    assert orjson.loads(text)["reason"] == "why"
    assert base64.b64decode(orjson.loads(raw)["_value_base64"]) == b"\xff\x00"
    adapter = orjson.loads(as_json("adapters", record(b"x" * 40, headers={"version": b"v2"})))
    assert adapter["_bytes"] == 40
    assert adapter["version"] == "v2"
    assert "_value" not in adapter
    assert orjson.loads(as_json("state", record(None)))["_value"] is None


def test_json_keeps_the_fields_of_the_value_and_the_headers_apart() -> None:
    taken = record(b'{"batch_id":"b","adapter":"mine"}', headers={"adapter": b"v2"})
    shown = orjson.loads(as_json("transactions", taken))
    assert shown["adapter"] == "mine"
    assert shown["_headers"] == {"adapter": "v2"}


@pytest.mark.parametrize(
    ("only", "taken"),
    [
        (ALL, True), (Filter(kind="rolled-back"), True), (Filter(kind="fenced"), False), (Filter(batch="b9"), True),
        (Filter(batch="b"), False), (Filter(grep="BACK to"), True), (Filter(grep="nowhere"), False),
        (Filter(kind="rolled-back", grep="nowhere"), False),
    ],
)  # fmt: skip
def test_filters(only: Filter, taken: bool) -> None:
    event = Event(at="t", kind="rolled-back", message="back to v3", service="monitor", facts={"batch_id": "b9"})
    assert only.takes("events", record(encode(event))) is taken


def test_a_batch_is_found_by_its_key_where_the_value_is_junk() -> None:
    assert Filter(batch="b1").takes("transactions", record(b"junk", key=b"b1"))


def publish(kafka: dict[str, str], prefix: str, count: int) -> None:
    events = [Event(at=wall_clock(), kind="drift-detected", message=f"number {i}", service="m") for i in range(count)]
    Writer(kafka, "test").publish([Out(topic_name("events", prefix), "m", encode(e)) for e in events])


def selfheal(kafka: dict[str, str], *args: str, **more: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka["bootstrap.servers"]}
    command = [sys.executable, "-P", "-m", "selfheal", *args]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.broker
def test_a_pipe_gets_json_lines_until_idle(kafka: dict[str, str], prefix: str) -> None:
    publish(kafka, prefix, 5)
    with selfheal(
        kafka, "tail", "events", "--prefix", prefix, "--since", "beginning", "--until-idle", "0.5", "--grep", "number"
    ) as tail:
        out, err = tail.communicate(timeout=60)
    assert (tail.returncode, err) == (0, "")
    assert [json.loads(text)["message"] for text in out.splitlines()] == [f"number {i}" for i in range(5)]


@pytest.mark.broker
def test_a_limit_ends_it_and_now_means_now(kafka: dict[str, str], prefix: str, wait_for: Any) -> None:
    publish(kafka, prefix, 3)
    with selfheal(kafka, "tail", "events", "--prefix", prefix, "--limit", "1") as tail:

        def said_something() -> bool:
            publish(kafka, prefix, 1)  # until it has joined, what is sent is before `now`
            return tail.poll() is not None

        wait_for(said_something, "tail shows what comes after it started", 60)
        out, _ = tail.communicate(timeout=10)
    (shown,) = out.splitlines()
    assert json.loads(shown)["_offset"] >= 3


@pytest.mark.broker
def test_a_reader_that_goes_away_ends_it_quietly(kafka: dict[str, str], prefix: str) -> None:
    publish(kafka, prefix, 2)
    with selfheal(kafka, "tail", "events", "--prefix", prefix, "--since", "beginning") as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert "number 0" in tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(30) == 0
        assert tail.stderr.read() == ""
