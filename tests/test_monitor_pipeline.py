"""Policy guarded with the healer that answers it, in one process: whole streams, and a monitor killed between any two
records."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from guarded_kit import Pipeline

from healer.knowledge import Knowledge, knowledge_of
from monitor.setup import Guarding, Setup
from monitor.state import State, load
from monitor.thresholds import Thresholds
from producer.scenarios import find
from selfheal.gauntlet.world import Arrival, arrivals
from shared.bundle import Bundle
from shared.settings import MonitorSettings

DELAY = 4  # batches until the labels are there


class Known(NamedTuple):
    """What takes a second or two to make, once for all tests."""

    bundle: Bundle
    setup: Setup
    knowledge: Knowledge


@pytest.fixture(scope="module")
def known(bundle: Bundle) -> Known:
    return Known(bundle, Setup.of(bundle, MonitorSettings(policy="guarded"), Thresholds()), knowledge_of(bundle))


def stream(known: Known, name: str, batches: int) -> list[Arrival]:
    guarding = known.setup.guarding
    assert isinstance(guarding, Guarding)
    return list(arrivals(find(name), 0, guarding.profile.logit, batches))


def play(
    known: Known, given: list[Arrival], between: Callable[[State], State] = lambda state: state, audit: int = 0
) -> Pipeline:
    """Every batch, and its labels DELAY batches later; audit: this many of each at once."""
    pipeline = Pipeline(known.bundle, known.setup, known.knowledge, between)
    for k, arrival in enumerate(given, start=1):
        pipeline.batch(arrival.x)
        if audit:
            pipeline.label(k, arrival.y, "audit", range(audit))
        if k > DELAY:
            pipeline.label(k - DELAY, given[k - DELAY - 1].y)
    return pipeline


def accuracy(pipeline: Pipeline, first: int, last: int) -> tuple[float, float]:
    """Mean over batches as served: frozen, healed."""
    rows = [pipeline.rows[f"b{k}"] for k in range(first, last + 1)]
    frozen, healed = (float(np.mean([getattr(r, n) for r in rows])) for n in ("accuracy_shadow", "accuracy_healed"))
    return frozen, healed


class Restarts:
    """Between two records: everything is forgotten but what the state topic holds."""

    def __init__(self) -> None:
        self.topic: dict[str, bytes] = {}
        self.largest = 0

    def __call__(self, state: State) -> State:
        for key, value in state.changes().items():
            if value is None:
                del self.topic[key]
            else:
                self.topic[key] = value
                self.largest = max(self.largest, len(value))
        again = load(self.topic)
        assert again is not None
        return again


def test_a_shift_is_healed_switched_off_and_on_again_however_often_the_monitor_is_killed(known: Known) -> None:
    given, restarts = stream(known, "S3", 33), Restarts()
    whole = play(known, given)
    assert next(e.facts["reason"] for e in whole.events() if e.kind == "adapter-activated") == "heal"
    assert "switch" in [e.facts.get("reason") for e in whole.events()], whole.told()
    frozen, healed = accuracy(whole, 14, 29)
    assert healed > frozen + 0.15
    killed = play(known, given, restarts)
    assert killed.decisions == whole.decisions
    assert restarts.largest < 100_000
    assert len(restarts.topic) < 40


def test_a_new_kind_of_fraud_is_refused_then_learned_however_often_the_monitor_is_killed(known: Known) -> None:
    given = stream(known, "S9", 32)
    whole = play(known, given, audit=2)
    learned = [e for e in whole.events() if e.kind == "adapter-activated"]
    assert learned, whole.told()
    assert learned[-1].facts["reason"] == "learned"
    frozen, healed = accuracy(whole, 25, 28)
    assert healed > frozen + 0.05
    assert {r.verdict for r in whole.rows.values()} >= {"none", "unexplained"}
    assert play(known, given, Restarts(), audit=2).decisions == whole.decisions


def test_a_quiet_stream_is_left_alone(known: Known) -> None:
    whole = play(known, stream(known, "S0", 60), audit=2)
    assert whole.control("active") == whole.control("candidate") == []
    assert all(r.next_version == "v1" and r.settled and r.verdict == "none" for r in whole.rows.values())
