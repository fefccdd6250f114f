"""The label plan: every label once and at its time, the audit's choice repeatable; and the rate's schedule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.labels import LabelPlan, LabelQueue, audited
from producer.pace import Pace
from shared.errors import OperatorError
from shared.records import Labels

plans = st.builds(
    LabelPlan,
    st.one_of(st.none(), st.integers(0, 8)),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(0, 8),
    st.integers(0, 3),
)


def play(plan: LabelPlan, n: int) -> tuple[list[tuple[int, Labels]], LabelQueue]:
    """(batch after which it came, record) of n batches of 5, batch k's labels being k's bits."""
    queue, sent = LabelQueue(plan), []
    for k in range(1, n + 1):
        ids = [f"{k}-{i}" for i in range(5)]
        sent += [(k, r) for r in queue.add(str(k), ids, truth(k))]
    return sent, queue


def truth(k: int) -> np.ndarray:
    return np.array([(k >> i) & 1 for i in range(5)], np.int8)


@settings(max_examples=200)
@given(plans, st.integers(1, 20))
def test_every_label_comes_once_a_kind_and_at_its_time(plan: LabelPlan, n: int) -> None:
    sent, queue = play(plan, n)
    left = queue.outstanding
    rest = queue.rest()
    assert len(rest) == left
    assert queue.outstanding == 0
    delays = {"delayed": plan.delay, "audit": plan.audit_delay}
    assert all(k - int(r.batch_id) == delays[r.kind] for k, r in sent)
    assert all(int(r.batch_id) + (delays[r.kind] or 0) > n for r in rest)
    told: dict[str, list[tuple[str, int]]] = {"delayed": [], "audit": []}
    for record in [r for _, r in sent] + rest:
        told[record.kind] += zip(record.transaction_ids, record.labels, strict=True)
    everything = [(f"{k}-{i}", int(truth(k)[i])) for k in range(1, n + 1) for i in range(5)]
    assert sorted(told["delayed"]) == (sorted(everything) if plan.delay is not None else [])
    picked = [(t, y) for t, y in everything if audited(plan.seed, t, plan.audit_share)]
    assert sorted(told["audit"]) == sorted(picked)


@settings(max_examples=50)
@given(plans, st.integers(1, 40))
def test_what_is_held_is_bounded_by_the_delay(plan: LabelPlan, n: int) -> None:
    _, queue = play(plan, n)
    assert queue.outstanding <= (plan.delay or 0) + plan.audit_delay


def test_delayed_labels_are_complete_batches() -> None:
    sent, _ = play(LabelPlan(delay=2, audit_share=0.4), 10)
    assert [(k, r.batch_id, len(r.labels)) for k, r in sent if r.kind == "delayed"] == [
        (k, str(k - 2), 5) for k in range(3, 11)
    ]


def test_the_audit_is_a_fair_share_and_repeats() -> None:
    ids = [f"t{i}" for i in range(20_000)]
    picked = [t for t in ids if audited(1, t, 0.02)]
    assert 320 < len(picked) < 480  # 400 +- 4 deviations
    assert picked == [t for t in ids if audited(1, t, 0.02)]
    assert picked != [t for t in ids if audited(2, t, 0.02)]
    assert set(picked) < {t for t in ids if audited(1, t, 0.05)}  # a larger share only adds
    # BLAKE2b-64 of "1:t0", as b2sum -l 64 prints it: what an auditor computes without our code.
    assert [audited(1, "t0", s) for s in (0xFAB9 / 2**16, 0xFABA / 2**16)] == [False, True]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"delay": -1}, "label delay -1"),
        ({"audit_delay": 10**6}, "audit delay"),
        ({"audit_share": 1.5}, "audit share 1.5"),
    ],
)
def test_a_plan_is_checked(bad: dict[str, float], why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        LabelPlan(**bad)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_late_batch_does_not_move_the_schedule() -> None:
    clock = Clock()
    pace = Pace(2.0, lambda: clock.now, clock.sleep)
    due = []
    clock.now += 5  # before the first batch is there, no time is lost
    for k in range(1, 6):
        assert pace.wait(k, lambda: False)
        due.append(round(clock.now - 105, 6))
        if k == 2:
            clock.now += 0.7  # batch 3 comes late, batch 4 does not
    assert due == [0, 0.5, 1.2, 1.5, 2.0]


def test_a_pause_ends_soon_after_a_stop() -> None:
    clock = Clock()
    pace = Pace(0.001, lambda: clock.now, clock.sleep)
    assert pace.wait(1, lambda: False)
    assert not pace.wait(2, lambda: clock.now > 101)
    assert clock.now < 101.2
    assert max(clock.slept) <= 0.1
    with pytest.raises(OperatorError, match="rate 0"):
        Pace(0)
