"""The guard: asks on drift, activates what is promoted, switches back at once, withdraws, and survives JSON."""

import msgspec
from drifting import V14, batches, moved, profile
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detect import Sums, sums_of, threshold
from monitor.guard import (
    BLOCKS,
    MEMORY,
    Activate,
    Answer,
    Ask,
    Guard,
    Known,
    begin,
    forget,
    hold,
    on_answer,
    on_block,
    rested,
)
from shared.alignment import Alignment, Floats, identity

P = profile()
H = threshold(P)


def shifted(amount: float) -> Alignment:
    shift = [0.0] * P.d
    shift[V14] = amount
    return Alignment(tuple(shift), (1.0,) * P.d, P.fraud_rate)


def feed(guard: Guard, x: Floats) -> tuple[Guard, Activate | Ask | None]:
    sums = tuple(sums_of(P, P.read(x, k.alignment), k.alignment.fraud_rate) for k in guard.known)
    return on_block(guard, sums, P, H)


def healed(amount: float = -2.2) -> Guard:
    guard = begin(identity(P.d, P.fraud_rate))
    for x in moved(batches(1, 2), amount):
        guard, _ = feed(guard, x)
    guard, action = on_answer(guard, Answer("shift", True, 2, False, shifted(amount), "v2"), P.deviation)
    assert isinstance(action, Activate)
    return guard


def test_drift_brings_a_request_and_quiet_brings_none() -> None:
    guard = begin(identity(P.d, P.fraud_rate))
    for x in batches(0, 10):
        guard, action = feed(guard, x)
        assert action is None
    for x in moved(batches(1, 2), -2.2):
        guard, action = feed(guard, x)
    assert isinstance(action, Ask)
    assert action.blocks <= BLOCKS


def test_the_end_of_a_drift_switches_back_at_once_and_its_return_too() -> None:
    guard = healed()
    guard, action = feed(guard, batches(2, 1)[0])
    assert isinstance(action, Activate)
    assert action.reason == "drift-ended"
    assert guard.active == 0
    guard, action = feed(guard, moved(batches(3, 1), -2.2)[0])
    assert isinstance(action, Activate)
    assert action.reason == "switch"
    assert guard.state.name == "v2"


def test_two_refits_that_fail_withdraw_the_heal() -> None:
    guard, failed = healed(), Answer("unexplained", False, 3, False)
    guard, action = on_answer(guard, failed, P.deviation)
    assert action is None
    guard, action = on_answer(guard, failed, P.deviation)
    assert isinstance(action, Activate)
    assert action.reason == "withdrawn"
    assert guard.verdict == "unexplained"
    guard, after = feed(guard, moved(batches(3, 1), -2.2)[0])
    assert not isinstance(after, Activate), "a block that the withdrawn repair explains does not bring it back"
    assert [k.name for k in guard.known] == ["v1"]


def test_a_refused_refit_keeps_a_heal_that_still_fits() -> None:
    guard = healed()
    for _ in range(5):
        guard, action = on_answer(guard, Answer("unexplained", False, 3, True), P.deviation)
        assert action is None
    assert guard.verdict == "shift"


def test_a_repair_that_rests_is_neither_asked_about_nor_switched_to() -> None:
    guard = hold(healed(), Known("v2", shifted(-2.2), "shift", rests_until=30))
    assert (guard.active, guard.verdict) == (0, "unexplained")
    for x in moved(batches(4, 12), -2.2):
        guard, action = feed(guard, x)
        assert action is None
    assert len(rested(guard, 29).known) == 2
    guard = rested(guard, 30)
    assert [k.name for k in guard.known] == ["v1"]
    guard, action = feed(guard, moved(batches(5, 1), -2.2)[0])
    assert isinstance(action, Ask)


def test_rows_that_a_repair_at_rest_does_not_explain_are_asked_about() -> None:
    guard = hold(healed(), Known("v2", shifted(-2.2), "shift", rests_until=30))
    asked = False
    for x in moved(batches(4, 6), -4.0):
        guard, action = feed(guard, x)
        asked |= isinstance(action, Ask)
    assert asked


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_memory_is_bounded_and_the_frozen_state_is_never_forgotten(amounts: list[float]) -> None:
    guard = begin(identity(P.d, P.fraud_rate))
    for amount in amounts:
        block = Sums(100, bytes(8 * 4 * (P.d + 1)))
        guard = msgspec.structs.replace(guard, blocks=(*guard.blocks, (block,) * len(guard.known)))
        guard, _ = on_answer(guard, Answer("shift", True, 1, False, shifted(amount), f"v{amount}"), P.deviation)
        assert guard.state.alignment == shifted(amount)
        assert guard.known[0].name == "v1"
        assert len(guard.known) <= 1 + MEMORY
        assert all(len(b) <= len(guard.known) for b in guard.blocks)


def test_an_answer_that_comes_late_keeps_the_blocks_that_came_meanwhile() -> None:
    guard = begin(identity(P.d, P.fraud_rate))
    for x in moved(batches(1, 2), -2.2):
        guard, action = feed(guard, x)
    assert isinstance(action, Ask)
    for x in moved(batches(2, 3), -2.2):
        sums = tuple(sums_of(P, P.read(x, k.alignment), k.alignment.fraud_rate) for k in guard.known)
        guard, action = on_block(guard, sums, P, H, may_ask=False)
        assert action is None
    guard, _ = on_answer(guard, Answer("shift", True, 2, False, shifted(-2.2), "v2"), P.deviation)
    assert len(guard.blocks) == 5
    assert guard.fitted == 2


def test_a_state_that_is_forgotten_takes_its_sums_along() -> None:
    guard = healed()
    guard, _ = feed(guard, moved(batches(4, 1), -2.2)[0])
    assert forget(guard, "v1") == forget(guard, "v9") == guard
    guard = forget(guard, "v2")
    assert [k.name for k in guard.known] == ["v1"]
    assert {len(b) for b in guard.blocks} == {1}
    assert (guard.active, guard.verdict, guard.alarmed) == (0, "unexplained", True)


def test_the_state_is_the_same_after_a_restart() -> None:
    guard = healed()
    guard, _ = feed(guard, moved(batches(4, 1), -2.2)[0])
    again = msgspec.json.decode(msgspec.json.encode(guard), type=Guard)
    assert again == guard
    x = batches(5, 1)[0]
    assert feed(again, x) == feed(guard, x)
