"""The watcher of adapters: what happens to the scorer when it ends, is stuck, or is asked for what never comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from scorer import slot as slots
from scorer.catalog import Catalog
from scorer.slot import Slot
from shared.adapters import first_adapter, pack
from shared.bundle import Bundle
from shared.errors import Fatal, OperatorError, TimedOut
from shared.forward import Network
from shared.kafka import Taken


class Reader:
    """Stands in for Follower: hands out what the test puts in, raises what the test asks for."""

    def __init__(self) -> None:
        self.history: list[Taken] = []
        self.news: list[Taken] = []
        self.failure: Exception | None = None
        self.held = threading.Event()  # set: take() answers
        self.held.set()
        self.closed = False

    def __call__(self, *_args: Any, **_more: Any) -> Reader:
        return self

    def catch_up(self, _budget_s: float) -> Iterator[Taken]:
        self._fail()
        yield from self.history

    def take(self, _timeout_s: float) -> list[Taken]:
        assert self.held.wait(30)
        self._fail()
        records, self.news = self.news, []
        if not records:
            time.sleep(0.001)
        return records

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader()
    monkeypatch.setattr(slots, "Follower", reader)
    return reader


@pytest.fixture
def slot(reader: Reader, bundle: Bundle) -> Iterator[Slot]:
    slot = Slot({}, "P", "test", Catalog(bundle, Network.of(bundle)))
    yield slot
    reader.held.set()
    slot.close()


def never() -> bool:
    return False


def junk(version: str) -> Taken:
    return Taken("P.adapters", 0, int(version[1:]), 0, version.encode(), b"junk", {})


def test_it_serves_only_after_it_has_read_everything(reader: Reader, slot: Slot):
    reader.history = [junk("v2"), junk("v3")]
    assert slot.start(never)
    assert set(slot.view().refused) == {"v2", "v3"}


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(Fatal("gone"), Fatal), (TimedOut("nothing came"), Fatal), (OperatorError("no topic"), OperatorError)],
)
def test_a_watcher_that_cannot_start_is_told_at_once(reader: Reader, slot: Slot, failure, raised):
    reader.failure = failure
    with pytest.raises(raised, match=str(failure)):
        slot.start(never)
    assert reader.closed


def test_a_watcher_that_ends_ends_the_scorer(reader: Reader, slot: Slot, wait_for: Callable[..., None]):
    slot.start(never)
    slot.view()
    reader.failure = Fatal("the client is beyond repair")
    wait_for(lambda: reader.closed, "the watcher ends")
    with pytest.raises(Fatal, match="beyond repair"):
        slot.view()
    with pytest.raises(Fatal, match="beyond repair"):
        slot.wait_for("v2", time.monotonic() + 30, never)


def test_a_stuck_watcher_ends_the_scorer(reader: Reader, slot: Slot, monkeypatch: pytest.MonkeyPatch, wait_for):
    monkeypatch.setattr(slots, "STUCK_S", 0.2)
    slot.start(never)
    reader.held.clear()

    def stuck() -> bool:
        try:
            slot.view()
        except Fatal as exc:
            return "stuck" in str(exc)
        return False

    wait_for(stuck, "the missing sign of life is noticed")


def test_each_problem_is_handed_out_once(reader: Reader, slot: Slot, wait_for: Callable[..., None]):
    reader.history = [junk("v2")]
    slot.start(never)
    assert [p.version for p in slot.problems()] == ["v2"]
    assert slot.problems() == []
    reader.news = [junk("v3")]
    wait_for(lambda: "v3" in slot.view().refused, "v3 is refused")
    assert [p.version for p in slot.problems()] == ["v3"]


def test_old_adapters_of_another_bundle_are_no_news(reader: Reader, slot: Slot, wait_for: Callable[..., None]):
    def other(version: str) -> Taken:
        return junk(version)._replace(headers={"version": version.encode(), "bundle": b"f" * 64})

    reader.history = [other("v2"), junk("v3")]
    slot.start(never)
    assert "v2" in slot.view().refused
    assert [p.version for p in slot.problems()] == ["v3"]
    reader.news = [other("v4")]
    wait_for(lambda: "v4" in slot.view().refused, "v4 is refused")
    assert [p.version for p in slot.problems()] == ["v4"]


def test_problems_are_bounded(reader: Reader, slot: Slot, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slots, "_PROBLEMS_MAX", 3)
    reader.history = [junk(f"v{i}") for i in range(2, 9)]
    slot.start(never)
    assert len(slot.problems()) == 3


def test_waiting_ends_when_the_answer_is_there_or_time_is_up_or_somebody_says_stop(reader: Reader, slot: Slot):
    slot.start(never)
    assert slot.wait_for("v1", time.monotonic() + 30, never)  # there already
    assert slot.wait_for("v2", time.monotonic() + 0.05, never)  # time is up
    assert "v2" not in slot.view().loaded
    assert not slot.wait_for("v2", time.monotonic() + 30, lambda: True)
    timer = threading.Timer(0.05, lambda: reader.news.append(junk("v2")))
    timer.start()
    assert slot.wait_for("v2", time.monotonic() + 30, never)
    assert "v2" in slot.view().refused
    timer.join()


def unnamed(bundle: Bundle, version: str, **more: Any) -> Taken:
    made = msgspec.structs.replace(first_adapter(bundle), version=version, **more)
    value, headers = pack(made, request="r1", stage="post-heal", summary={}, at="2026-01-01T00:00:00Z")
    return Taken("P.adapters", 0, 1, 0, version.encode(), value, {k: v.encode() for k, v in headers.items()})


def test_who_waits_for_an_adapter_has_it_looked_into(reader: Reader, slot: Slot, bundle: Bundle):
    reader.history = [unnamed(bundle, "v2"), unnamed(bundle, "v3", logit_shift=float("nan"))]
    slot.start(never)
    reader.held.clear()  # so that the watcher has no time for it
    for version in ("v2", "v3"):
        assert slot.wait_for(version, 0.0, never)
    assert "v2" in slot.view().loaded
    assert "v3" in slot.view().refused
    assert [p.version for p in slot.problems()] == ["v3"]


def test_an_idle_watcher_finds_what_nobody_asked_for(reader: Reader, slot: Slot, bundle: Bundle, wait_for):
    reader.history = [unnamed(bundle, "v2"), unnamed(bundle, "v3", logit_shift=float("nan"))]
    slot.start(never)
    wait_for(lambda: "v2" in slot.view().loaded and "v3" in slot.view().refused, "both are looked into")
    assert [p.version for p in slot.problems()] == ["v3"]


def test_told_to_stop_before_all_was_read(reader: Reader, slot: Slot, monkeypatch: pytest.MonkeyPatch):
    hold = threading.Event()

    def catch_up(_budget_s: float) -> Iterator[Taken]:
        assert hold.wait(30)
        yield from ()

    monkeypatch.setattr(reader, "catch_up", catch_up)
    assert not slot.start(lambda: True)
    hold.set()
