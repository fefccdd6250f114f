"""Who runs, asked elsewhere: what goes wrong there is not known, and ends nobody here."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from selfheal import members
from selfheal.members import Found, held, members_of
from shared.errors import OperatorError
from shared.kafka import Member


def _ends(monkeypatch: pytest.MonkeyPatch, code: int, said: bytes) -> list[Any]:
    """The process that is to ask ends like this; what it was asked."""
    asked: list[Any] = []

    def run(command: list[str], *, input: bytes, **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append((command, msgspec.json.decode(input)))
        return subprocess.CompletedProcess(command, code, said, b"")

    monkeypatch.setattr("selfheal.members.subprocess.run", run)
    return asked


def test_secrets_go_by_stdin_and_not_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Found({"shop.scorer": [Member("scorer-0", "/127.0.0.1", [("shop.transactions", 1)])]})
    asked = _ends(monkeypatch, 0, msgspec.json.encode(there))
    assert members_of({"sasl.password": "hush"}, ["shop.scorer"]) == there.members
    ((command, question),) = asked
    assert question["kafka"] == {"sasl.password": "hush"}
    assert "hush" not in " ".join(command)


@pytest.mark.parametrize(("code", "said"), [(-signal.SIGABRT, b""), (1, b""), (-signal.SIGABRT, b'{"members": {}}')])
def test_an_abort_there_is_nobody_knows_here(monkeypatch: pytest.MonkeyPatch, code: int, said: bytes) -> None:
    _ends(monkeypatch, code, said)
    assert members_of({}, ["g"]) is None


def test_one_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "START_S", 0.2)
    monkeypatch.setattr(members, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    assert members_of({}, ["g"], budget_s=0.1) is None


def test_what_a_person_must_change_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _ends(monkeypatch, 0, msgspec.json.encode(Found(fault="no Kafka answers at nowhere:1")))
    with pytest.raises(OperatorError, match="no Kafka answers at nowhere:1"):
        members_of({}, ["g"])


def test_partitions_by_topic_without_the_prefix() -> None:
    assert held([("p.a", 2), ("p.a", 0), ("p.b", 1)], "p") == "a 0 2, b 1"
    assert held([], "p") == ""
