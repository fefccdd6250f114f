"""Policy guarded, folded by hand: what is asked, put in force, refused and taken back, and on what grounds."""

from __future__ import annotations

import pytest
from drifting import V14, batches, moved
from guarded_stream import FRAUD, NORMAL, P, Stream
from monitor_kit import AT, setup, stamp

from monitor.bounds import too_far
from monitor.outcomes import policy_changed
from shared.errors import Refused


def test_drift_raises_an_alarm_that_names_the_column_and_asks_about_its_blocks() -> None:
    run = Stream()
    run.batches(batches(0, 5))
    assert run.kinds() == []
    run.batches(moved(batches(1, 1), -2.2))
    asked = run.request()
    assert run.kinds() == ["alarm", "heal-requested"]
    assert run.message("alarm").startswith(f"V{V14} no longer follows the reference: z ")
    assert "about one false alarm in 10,000 quiet batches" in run.message("alarm")
    assert (asked.policy, asked.purpose, asked.base_version) == ("guarded", "diagnose", "v1")
    newest = asked.parameters["first_batch_idx"]
    assert [t.start for t in asked.transactions] == list(range(int(newest), run.k + 1))
    assert asked.blocks == [1] * len(asked.transactions)
    assert (asked.batch_id, asked.at) == (f"b{run.k}", stamp(run.k))


def test_small_batches_are_gathered_into_blocks_of_a_hundred_rows() -> None:
    run = Stream()
    for x in moved(batches(1, 12, rows=30), -2.2):
        run.batch(x)
    asked = run.request()
    assert set(asked.blocks) == {4}
    assert sum(asked.blocks) == len(asked.transactions)
    assert asked.parameters["first_batch_idx"] == 1


def test_a_batch_settles_at_once_and_one_that_asked_with_its_outcome() -> None:
    run = Stream()
    run.batch(batches(0, 1)[0])
    row = run.row("b1")
    assert (row.settled, row.next_version, row.action) == (True, "v1", "none")
    assert (row.verdict, row.state) == ("none", "HEALTHY")
    run.batches(moved(batches(1, 1), -2.2))
    asked = run.row(f"b{run.k}")
    assert (asked.settled, asked.state, asked.action) == (False, "HEALING", "diagnose")
    run.found()
    row = run.row(f"b{run.k}")
    assert (row.settled, row.next_version, row.action, row.verdict) == (True, "v2", "heal", "shift")
    assert run.control("active") == ["v2"]
    assert run.message("adapter-activated") == f"v2 activated (heal), undoes V{V14} -2.2; flags 60.0% -> 14.0%"


def test_what_ends_is_withdrawn_at_once_and_what_comes_back_needs_no_fit() -> None:
    run = Stream()
    version = run.healed()
    asked = len(run.of("heal-requests"))
    run.batch(batches(7, 1)[0])
    assert run.state.core.active == "v1"
    assert run.message("drift-ended") == f"drift has ended (V{V14} -2.2): back from {version} to v1"
    run.batch(moved(batches(8, 1), -2.2)[0])
    assert run.state.core.active == version
    assert run.message("adapter-activated") == f"{version} activated again: V{V14} -2.2 is back, no fit"
    assert len(run.of("heal-requests")) == asked
    assert run.control("active") == [version, "v1", version]


def test_rows_that_are_gone_are_counted_and_skipped() -> None:
    run = Stream()
    run.batch(None)
    run.batch(batches(0, 1)[0])
    assert run.state.core.counters["rows_gone"] == 100
    assert run.row("b1").settled
    assert run.state.guarded is not None
    assert run.state.guarded.guard.count == 1


def test_an_answer_about_another_state_is_not_followed() -> None:
    run = Stream()
    run.healed()
    run.batches(moved(batches(20, 3), -2.6))  # a residual: asks under the repair
    asked = run.request()
    assert asked.base_version == run.state.core.active
    run.batch(batches(9, 1)[0])  # meanwhile the drift ends
    assert run.state.core.active == "v1"
    run.found(amount=-2.6)
    assert run.state.core.active == "v1"
    assert run.state.core.counters["answers_stale"] == 1
    assert run.row(asked.batch_id).settled


def test_an_answer_that_is_no_alignment_is_refused_and_changes_nothing() -> None:
    run = Stream()
    run.batches(moved(batches(1, 2), -2.2))
    with pytest.raises(Refused, match="scale: 2 numbers, the bundle has 10 features"):
        run.found(scale=[1.0, 1.0])
    with pytest.raises(Refused, match="order: does not hold each of 0 to 9 once"):
        run.found(order=[0] * P.d)
    assert run.state.core.heal is not None
    run.found()
    assert run.state.core.heal is None


def test_a_repair_that_floods_the_alerts_is_not_put_in_force() -> None:
    run = Stream()
    run.batches(moved(batches(1, 2), -2.2))
    run.found(flagged_before=0.2, flagged_after=0.8)
    assert run.state.core.active == "v1"
    assert "it would flag 80.0% of the transactions, 20.0% are flagged now" in run.message("adapter-rejected")
    assert "MONITOR_FLAG_FACTOR 4" in run.message("adapter-rejected")
    assert run.row(f"b{run.k}").action == "rejected"


@pytest.mark.parametrize(
    ("before", "after", "far"),
    [
        (0.9, 0.15, False),
        (0.15, 0.5, False),
        (0.15, 0.7, True),
        (0.9, 0.7, False),
        (0.15, 0.0, True),
        (0, 0.15, False),
        (0, 1, True),
    ],
)
def test_bound_on_the_share_of_flags(before: float, after: float, far: bool) -> None:
    assert too_far(before, after, 0.15, 4, 1_000) == far


@pytest.mark.parametrize(("rows", "flagged", "far"), [(1_000, 0, False), (1_000, 9, False), (1_000, 10, True),
                                                       (100_000, 0, True), (100_000, 500, True)])  # fmt: skip
def test_where_fraud_is_rare_a_few_flags_more_or_less_are_chance(rows: int, flagged: int, far: bool) -> None:
    assert too_far(0.001, flagged / rows, 0.001, 4, rows) == far


def test_labels_take_a_harmful_repair_back_and_the_cooldown_holds() -> None:
    run = Stream()
    version = run.healed()
    names = [run.batch(x, served=[FRAUD] * 100, frozen=[NORMAL] * 100) for x in moved(batches(5, 2), -2.2)]
    for name in names:
        run.label(name, [0] * 100)
    assert run.state.core.active == "v1"
    assert run.message("rolled-back").startswith(f"rolled back {version} -> v1: on labelled rows the frozen network")
    took_back = [r for r in run.of("metrics") if r.rolled_back]
    assert (took_back[-1].state, took_back[-1].action) == ("ROLLED_BACK", "rollback")
    since, asked = run.state.core.batches, len(run.of("heal-requests"))
    while run.state.core.batches < since + 18:
        run.batch(moved(batches(run.k, 1), -2.2)[0])
    assert len(run.of("heal-requests")) == asked, "what the answer would be is known, and may not be used"
    while run.state.core.active == "v1":
        run.batch(moved(batches(run.k, 1), -2.2)[0])
        if run.state.core.heal is not None:
            run.found()
        assert run.state.core.batches < since + 40
    assert run.state.core.batches >= since + 20


def test_during_the_cooldown_another_drift_is_asked_about_and_its_like_is_refused_once() -> None:
    run = Stream()
    run.healed()
    for x in moved(batches(5, 2), -2.2):
        run.label(run.batch(x, served=[FRAUD] * 100, frozen=[NORMAL] * 100), [0] * 100)
    assert run.state.core.active == "v1"
    asked = len(run.of("heal-requests"))
    for x in moved(batches(7, 12), -4.0):  # the refused repair does not explain this
        run.batch(x)
        if run.state.core.heal is not None:
            run.found(amount=-4.0)  # a shift again: of the kind that labels took back
    assert run.state.core.active == "v1"
    assert len(run.of("heal-requests")) == asked + 1
    assert run.kinds().count("adapter-rejected") == 1
    assert "it is tried again from batch" in run.message("adapter-rejected")


def test_labels_of_flagged_transactions_alone_are_no_evidence() -> None:
    run = Stream()
    run.healed()
    served = [FRAUD] * 60 + [NORMAL] * 40
    for x in moved(batches(5, 4), -2.2):
        name = run.batch(x, served=served, frozen=[NORMAL] * 100)
        run.label(name, [0] * 100, of=range(60))
    assert run.state.learning.tallies == {}


def test_a_random_audit_is_evidence_and_a_row_counts_once() -> None:
    run = Stream()
    version = run.healed()
    name = run.batch(moved(batches(5, 1), -2.2)[0], served=[FRAUD] * 100, frozen=[NORMAL] * 100)
    run.label(name, [0] * 100, "audit", of=[3, 4])
    assert run.state.learning.tallies[version].won_normal == 2
    run.label(name, [0] * 100, "audit", of=[4, 5])
    assert run.state.learning.tallies[version].won_normal == 3
    run.label(name, [0] * 100)
    assert "rolled-back" in run.kinds()


def test_another_policy_takes_over_what_is_in_force_and_gives_up_what_is_under_way() -> None:
    run = Stream()
    version = run.healed()
    run.batches(moved(batches(20, 3), -2.6))
    assert run.state.core.heal is not None
    run.state.core.policy = "guarded"
    run.all += policy_changed(run.state, setup(policy="reference"), AT)
    assert "the policy changed from guarded to reference" in run.message("heal-failed")
    assert (run.state.core.heal, run.state.guarded, run.state.core.active) == (None, None, version)
    run.state.core.policy = "reference"
    run.all += policy_changed(run.state, run.setup, AT)
    run.batch(batches(60, 1)[0])
    assert run.state.learning.overlay == run.state.core.active == version
