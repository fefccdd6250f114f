"""The state on its topic: whatever the turns, and wherever a process was killed, the same decisions come out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_kit import AT, BUNDLE, Run, event, finished, fresh, ids, labels, prediction, setup

from monitor import state as states
from monitor.decide import Input, fold
from monitor.setup import Decision, Setup
from monitor.state import DONE_PART, State, load
from monitor.thresholds import Thresholds
from shared.errors import OperatorError

QUICK = Thresholds(rollback_f1_drop=0.05, health_window=3, conflict_min=3)


def write(topic: dict[str, bytes], state: State) -> None:
    """What a committed turn leaves on a compacted topic."""
    for key, value in state.changes().items():
        if value is None:
            del topic[key]
        else:
            topic[key] = value


def reloaded(topic: dict[str, bytes]) -> State:
    state = load(topic)
    assert state is not None
    return state


def stream(of: Setup, seed: int, length: int) -> tuple[list[Input], list[Decision]]:
    """Records in an order that a pipeline could give, labels early, late, partial and repeated, heals that succeed,
    fail or never end; and what one process that is never stopped decides."""
    chance, state, records, decisions = random.Random(seed), fresh(), [], []
    waiting: list[Input] = []
    for k in range(length):
        name = f"b{k}"
        coming = [prediction(name, [round(chance.random(), 3) for _ in range(3)], k=k, conflicts=chance.randrange(6),
                             v14=chance.gauss(0.5, 1), version=state.core.active)]  # fmt: skip
        names, given = ids(name, 3), [chance.randrange(2) for _ in range(3)]
        cut = chance.randrange(4)
        coming += [labels(name, given[a:b], of=names[a:b], offset=10 * k + a) for a, b in ((0, cut), (cut, 3)) if a < b]
        if chance.random() < 0.2:
            coming.append(chance.choice(coming))
        waiting += coming
        chance.shuffle(waiting)
        for record in [waiting.pop() for _ in range(min(len(waiting), chance.randrange(5)))]:
            records.append(record)
            decisions += fold(state, of, record, AT)
            if state.core.heal is not None and chance.random() < 0.5:
                asked, f1 = state.core.heal.request_id, round(chance.random(), 3)
                good = chance.random() < 0.8
                outcome = finished(asked, f"v{k}", f1) if good else event("heal-failed", request_id=asked, reason="no")
                records.append(outcome)
                decisions += fold(state, of, outcome, AT)
    return records, decisions


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cuts=st.sets(st.integers(0, 200)),
    pending_max=st.sampled_from([3, 10, 1_000]),
    patience=st.sampled_from([0, 4]),
)
def test_any_split_into_turns_and_any_restart_gives_the_same_decisions(
    seed: int, cuts: set[int], pending_max: int, patience: int
) -> None:
    of = setup(thresholds=QUICK, pending_max=pending_max, label_patience=patience)
    records, whole = stream(of, seed, 40)
    topic: dict[str, bytes] = {}
    state, decisions = fresh(), []
    for i, record in enumerate(records):
        if i in cuts:
            write(topic, state)
            state = reloaded(topic)
        decisions += fold(state, of, record, AT)
    assert decisions == whole


def test_the_streams_of_the_property_do_heal_fail_roll_back_and_give_up() -> None:
    of = setup(thresholds=QUICK, pending_max=10)
    seen = Run(of)
    for seed in range(5):
        seen.all += stream(of, seed, 40)[1]
    actions = {r.action for r in seen.of("metrics")}
    assert actions == {"none", "heal", "heal+rollback", "heal-failed", "unjudged", "rollback"}


def test_a_quiet_turn_writes_nothing_but_what_changed() -> None:
    run, topic = Run(), dict[str, bytes]()
    run(prediction("b1"), prediction("b2", k=1))
    write(topic, run.state)
    assert set(topic) == {"core", "fidi", "pending/b1", "pending/b2"}
    assert run.state.changes() == {}
    run(labels("b1"))
    changes = run.state.changes()
    assert set(changes) == {"core", "pending/b1", "done/0"}
    assert changes["pending/b1"] is None


def test_what_comes_and_goes_within_a_turn_is_never_written() -> None:
    run = Run()
    run(labels("b1"), prediction("b1"))
    assert set(run.state.changes()) == {"core", "fidi", "done/0"}


def test_a_labelled_half_survives_a_restart() -> None:
    run, topic = Run(), dict[str, bytes]()
    run(prediction("b1", conflicts=9), labels("b1", (1, 0), of=ids("b1", 4)[:2]))
    write(topic, run.state)
    again = Run(state=reloaded(topic))
    again(labels("b1", (0, 0), of=ids("b1", 4)[2:], offset=1))
    assert again.request().batch_id == "b1"
    write(topic, again.state)
    third = Run(state=reloaded(topic))
    third(finished("heal-1", "v3"))
    assert third.row("b1").next_version == "v3"


def test_the_memory_of_done_batches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "DONE_PARTS", 2)
    run, topic = Run(), dict[str, bytes]()
    for k in range(3 * DONE_PART):
        run(prediction(f"b{k}", (0.5,), k=k), labels(f"b{k}", (1,)))
        write(topic, run.state)
    assert sorted(k for k in topic if k.startswith("done/")) == ["done/1", "done/2"]
    assert len(reloaded(topic).done_ids) == 2 * DONE_PART


def test_another_bundle_starts_afresh_and_counts_on() -> None:
    run, topic = Run(), dict[str, bytes]()
    run.heal("b1", 1, "v3", 0.5)
    run(prediction("b2", k=2))
    write(topic, run.state)
    state = reloaded(topic).replaced("c" * 64)
    write(topic, state)
    assert set(topic) == {"core", "fidi"}
    after = reloaded(topic)
    assert (after.core.bundle, after.core.batches, after.core.active) == ("c" * 64, 2, "v1")
    assert (after.registry, after.window, after.core.heal) == ({}, [], None)


def test_a_state_that_cannot_be_read_says_what_to_do() -> None:
    topic: dict[str, bytes] = {}
    assert load(topic) is None
    write(topic, fresh(BUNDLE))
    topic["pending/b1"] = b'{"row": 3}'
    with pytest.raises(OperatorError, match="another version of this program"):
        load(topic)
