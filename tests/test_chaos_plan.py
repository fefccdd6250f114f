"""The schedule: the same for the same seed, and nothing left out of it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.chaos.plan import MINUTES_MIN, broker_faults, schedule, services_of
from selfheal.chaos.report import judged, lines
from selfheal.chaos.world import Death, Record
from shared.crash import CRASH_POINTS
from shared.errors import OperatorError

LENGTHS = (MINUTES_MIN, 3.0, 5.0)


@settings(deadline=None)  # of a machine that has other work
@given(seed=st.integers(0, 10_000), minutes=st.sampled_from(LENGTHS), brokers=st.sampled_from((1, 3)))
def test_every_schedule_has_every_point_and_every_kind_of_fault(seed: int, minutes: float, brokers: int) -> None:
    acts = schedule(seed, minutes, brokers=brokers)
    assert acts == schedule(seed, minutes, brokers=brokers)
    assert {a.point for a in acts if a.point} == set(CRASH_POINTS)
    wanted = {"crash", "term", "pause", "zombie", "double", "grow", *broker_faults(brokers)}
    assert wanted <= {a.kind for a in acts}
    assert {a.service for a in acts if a.kind == "double"} == {"scorer", "monitor"}
    assert {a.service for a in acts if a.kind == "term"} == {"producer", "scorer", "healer", "monitor"}
    assert [a.at_s for a in acts] == sorted(a.at_s for a in acts)
    assert acts[0].at_s > 0
    assert acts[-1].at_s < minutes * 60
    assert all(a.service in services_of(a.point) for a in acts if a.point)


def test_seeds_differ_and_five_minutes_are_enough() -> None:
    assert len({tuple(map(str, schedule(seed, 5.0))) for seed in range(5)}) == 5
    for seed in range(5):
        acts = schedule(seed, 5.0)
        assert sum(2 if a.kind == "crash" else a.kind == "kill" for a in acts) >= 60
        tried = {(a.service, a.point) for a in acts if a.point.startswith("session")}
        shared = sum(p.startswith("session") for p in CRASH_POINTS)
        assert Counter(service for service, _ in tried) >= Counter(scorer=shared, monitor=shared, healer=3)


def test_a_run_too_short_says_how_long() -> None:
    with pytest.raises(OperatorError, match=r"--minutes 1: .* 1\.5 or more"):
        schedule(1, 1.0)


def test_what_makes_a_run_red_is_named() -> None:
    def outcome(deaths: list[Death], ok: bool = True, lost: list[str] | None = None) -> Any:
        watch = SimpleNamespace(recovered_s=lambda _: 2.0, kinds=kinds)
        world: Any = SimpleNamespace(record=Record(deaths=deaths), watch=watch, policy="guarded")
        audit = {
            "ok": ok,
            "broken": [] if ok else ["answers"],
            "inputs": {"read": 9, "lost": 0, "doubled": 0 if ok else 2},
        }
        return judged([], world, seed=1, brokers=1, left_out=[], took_s=1.0, lost=lost or [], acknowledged=5,
                      notices=[], audit=audit, audit_lines=[])  # fmt: skip

    kinds = {"heal-requested": 3, "adapter-activated": 2, "service-started": 9}

    every = [Death("scorer-0", 1, point, True) for point in CRASH_POINTS]
    green = outcome(every)
    assert green.green
    assert green.kills == len(CRASH_POINTS)
    assert green.recovery.median_s == 2.0
    assert 0 < green.inside < green.kills
    assert "seed 1: green" in lines(green)[-1]
    assert green.decided == {"adapter-activated": 2, "heal-requested": 3}
    assert outcome(every[1:]).faults == [f"crash point {CRASH_POINTS[0]} was never reached"]
    assert "audit is red: answers" in outcome(every, ok=False).faults[0]
    assert "gone, the first load-7" in outcome(every, lost=["load-7"]).faults[0]
    assert not outcome(every, lost=["load-7"]).green
    assert outcome(every, ok=False).doubled == 2
    kinds = {"heal-requested": 3}
    assert outcome(every).faults == ["nothing was broken while it healed: no event adapter-activated"]
