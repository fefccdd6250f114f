"""The state machine, rule by rule (docs/protocol.md, "Deciding")."""

from __future__ import annotations

from typing import Any

import pytest
from monitor_kit import AT, LOCKSTEP, Run, event, finished, ids, labels, prediction, setup, stamp

from monitor import joining
from monitor.outcomes import expired
from monitor.thinning import is_read
from monitor.thresholds import Thresholds
from shared.errors import Refused
from shared.records import OffsetRange, Source


def test_a_prediction_makes_a_row_without_scores() -> None:
    run = Run()
    run(prediction("b1", (0.9, 0.1), k=1))
    row = run.row("b1")
    assert (row.batch_idx, row.rows, row.state, row.action, row.settled) == (1, 2, "HEALTHY", "none", False)
    assert (row.timestamp, row.flagged_share, row.z_score) == (stamp(1), 0.5, None)
    assert row.accuracy_healed is None
    assert row.accuracy_baseline == 0.9


def test_labels_complete_the_row() -> None:
    run = Run()
    run(prediction("b1", (0.9, 0.1, 0.2, 0.9), shadow=(0.9, 0.9, 0.9, 0.9)), labels("b1", (1, 0, 1, 0)))
    row = run.row("b1")
    assert (row.accuracy_healed, row.accuracy_shadow, row.acc_lift) == (0.5, 0.5, 0.0)
    assert (row.precision_healed, row.recall_healed, row.recall_shadow) == (0.5, 0.5, 1.0)
    assert (row.cost_healed, row.cost_shadow) == (1 / 4, 2 / 4)  # .2 is over 1/6: flagged
    assert (row.labelled, row.settled, row.acc_lift_post_heal) == (4, True, 0.0)
    assert not run.state.pending


def test_labels_may_come_first_late_in_parts_and_in_any_order() -> None:
    whole, parts, early = Run(), Run(), Run()
    whole(prediction("b1"), labels("b1", (1, 0, 0, 1)))
    names = ids("b1", 4)
    parts(prediction("b1"), labels("b1", (1, 0), of=[names[3], names[1]]))
    assert not parts.row("b1").settled
    parts(labels("b1", (0, 1), of=[names[2], names[0]]))
    early(labels("b1", (1, 0), of=[names[3], names[1]]), labels("b1", (0, 1), of=[names[2], names[0]], offset=1))
    early(prediction("b1"))
    assert whole.row("b1") == parts.row("b1") == early.row("b1")
    assert not early.state.early


def test_repeated_unknown_and_late_labels_are_counted_and_dropped() -> None:
    run = Run()
    names = ids("b1", 4)
    run(prediction("b1"), labels("b1", (1,), of=names[:1]), labels("b1", (1, 1), of=[names[0], "nobody"]))
    run(labels("b1", (1,), of=names[:1], offset=7))
    assert len(run.state.pending["b1"].joined) == 1
    run(labels("b1", (0, 0, 0), of=names[1:], offset=8), labels("b1", (1,), of=names[:1]))
    assert run.state.core.counters == {"labels_repeated": 2, "labels_unknown": 1, "labels_late": 1}
    assert run.row("b1").accuracy_healed == 1.0


def test_the_later_of_two_labels_counts() -> None:
    run = Run()
    run(prediction("b1", conflicts=9), labels("b1", (0, 1), of=["b1-0", "b1-1"], offset=1))
    run(labels("b1", (1, 0), of=["b1-0", "b1-1"], offset=2), labels("b1", (0, 0), of=["b1-2", "b1-3"], offset=3))
    assert run.row("b1").accuracy_healed == 1.0
    assert [r.start for r in run.request().labels] == [1, 2, 3]


def test_labels_for_nobody_do_not_pile_up() -> None:
    run = Run(setup(pending_max=10))
    elsewhere = labels("x0")._replace(source=Source(topic="labels", partition=1, offset=0))
    run(elsewhere, labels("x1"), *[labels(f"y{k}") for k in range(8)])
    for k in range(joining.LOOK_EVERY - 1):
        run(prediction(f"b{k}", k=k))
    run(labels("x2"), prediction("c1", k=99))
    assert list(run.state.early) == ["x0", "x2"]  # the others are not among the 20 batches that came after them
    assert run.state.core.counters["labels_unknown"] == 9 * 4
    for k in range(2_000):
        run(labels("x2", (1,), of=[f"t{k}"]))
    assert sum(len(r.labels) for r in run.state.early["x2"].records) == 1_000


def test_early_labels_are_bounded_even_when_nobody_stops_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "TURN_MAX", 5)
    run = Run(setup(pending_max=10))
    for k in range(20):
        run(labels(f"x{k}"))
    assert list(run.state.early) == [f"x{k}" for k in range(5, 20)]


def test_the_oldest_batches_go_unjudged_beyond_the_bound() -> None:
    run = Run(setup(pending_max=10))
    for k in range(12):
        run(prediction(f"b{k}", k=k))
    run(labels("b0"))
    assert [run.row(f"b{k}").action for k in range(3)] == ["unjudged", "unjudged", "none"]
    assert run.row("b0").settled
    assert run.state.core.counters == {"unjudged": 2, "labels_late": 4}
    assert len(run.state.pending) == 10


def test_a_batch_that_comes_again_is_not_judged_again() -> None:
    run = Run()
    run(prediction("b1"), prediction("b1", (0.1, 0.1, 0.1, 0.1)), labels("b1"), prediction("b1"))
    assert run.state.core.batches == 1
    assert run.state.core.counters == {"repeated": 2}
    assert run.kinds() == []
    run(prediction("b1", lockstep=True))
    assert run.kinds() == ["record-refused"]


def test_drift_is_told_once_and_its_end_once() -> None:
    run = Run(setup(policy="observe"))
    for k, v14 in enumerate([-2.0] * 5 + [2.0] * 6, start=1):
        run(prediction(f"b{k}", (0.1,) * 100, k=k, v14=v14))
    assert run.kinds() == ["drift-detected", "drift-ended"]
    began, ended = run.of("events")
    assert began.message == "V14 drifts: z 2.00 over 1.00 since batch 3"
    assert began.facts["batch_idx"] == 3
    assert began.facts["top"] == {"V14": 2.0, "noise": 0.0}
    assert (ended.facts["since"], ended.at) == (3, AT)
    states = [run.row(f"b{k}").state for k in range(1, 12)]
    assert states[:3] == ["HEALTHY", "HEALTHY", "DRIFTING"]
    assert states[ended.facts["batch_idx"] - 1] == "HEALTHY"


def test_small_batches_tell_a_crossing_once_it_has_held_for_a_hundred_rows() -> None:
    """Batches of 20 rows: the threshold is crossed at batch 3, told at 7; one that comes and goes is not told."""
    run = Run(setup(policy="observe"))
    for k in range(1, 8):
        assert run.kinds() == []
        run(prediction(f"b{k}", (0.1,) * 20, k=k, v14=-2.0))
    assert [(e.kind, e.facts["since"]) for e in run.of("events")] == [("drift-detected", 3)]
    for k in range(8, 60):  # one loud batch in eleven: the window of ten is without one for a batch, then for none
        run(prediction(f"b{k}", (0.1,) * 20, k=k, v14=-30.0 if k % 11 == 0 else 0.0))
    assert {run.row(f"b{k}").state for k in range(20, 60)} == {"HEALTHY", "DRIFTING"}
    assert run.kinds() == ["drift-detected"]


@pytest.mark.parametrize(("conflicts", "v14", "reason"), [(5, 0.0, "5 conflicts"), (4, 2.0, "V14 z 2.00 over 1.00")])
def test_conflicts_or_fidi_ask_for_a_heal(conflicts: int, v14: float, reason: str) -> None:
    run = Run()
    for k in range(1, 3):
        run(prediction(f"b{k}", k=k, v14=v14), labels(f"b{k}"))
    assert "heal-requested" not in run.kinds()
    names = ids("b3", 4)
    run(prediction("b3", k=7, v14=v14, conflicts=conflicts), labels("b3", (1, 0), of=names[:2], offset=20))
    run(labels("b3", (1, 0), of=names[:2], offset=21), labels("b3", (0, 0), of=names[2:], offset=30))
    request = run.request()
    assert request.reason == reason
    assert (request.request_id, request.base_version, request.batch_id, request.at) == ("heal-3", "v1", "b3", stamp(7))
    assert request.transactions == [OffsetRange(topic="transactions", partition=0, start=7, end=8)]
    assert [(r.topic, r.start, r.end) for r in request.labels] == [("labels", 20, 21), ("labels", 30, 31)]
    assert request.parameters == {"heal_steps": 5, "heal_lr": 0.003}
    row = run.row("b3")
    assert (row.state, row.action, row.settled, row.next_version) == ("HEALING", "heal", False, "v1")
    assert run.of("events")[-1].message == f"batch 3: heal asked, {reason}"


def test_one_heal_at_a_time() -> None:
    run = Run()
    run(prediction("b1", conflicts=9), labels("b1"), prediction("b2", k=2, conflicts=9), labels("b2"))
    assert len(run.of("heal-requests")) == 1
    assert (run.row("b2").action, run.row("b2").settled) == ("none", True)


def test_observe_never_asks() -> None:
    run = Run(setup(policy="observe"))
    run(prediction("b1", conflicts=9), labels("b1"))
    assert run.of("heal-requests") == []
    assert run.row("b1").settled


def test_a_finished_heal_is_adopted_at_once() -> None:
    run = Run()
    run(prediction("b1", (0.9, 0.9, 0.9, 0.9), conflicts=9), labels("b1"))
    run(finished("heal-1", "v3", f1=0.5, accuracy=0.75))
    (active,) = run.of("control")
    assert (active.setting, active.version, active.previous, active.batch_id) == ("active", "v3", "v1", "b1")
    assert run.of("events")[-1].message == "v3 activated (accuracy .40 -> .75 on its own rows)"
    row = run.row("b1")
    assert (row.state, row.action, row.settled, row.next_version) == ("HEALTHY", "heal", True, "v3")
    assert (row.accuracy_post_heal, row.f1_post_heal, row.loss_entropy) == (0.75, 0.5, 0.125)
    assert (row.acc_lift, row.acc_lift_post_heal) == (0.0, 0.5)
    assert not run.state.pending
    assert list(run.state.registry) == ["v3"]


def test_a_fall_in_health_restores_the_best_post_heal_entry() -> None:
    run = Run()
    for k, (version, f1) in enumerate([("v3", 0.33), ("v5", 0.408), ("v7", 0.1), ("v9", 0.1)], start=1):
        run.heal(f"b{k}", k, version, f1)
    rolled = run.of("events")[-1]
    assert run.row("b4").action == "heal+rollback"
    assert rolled.message == "rolled back v9 -> v5 (F1 .408): mean F1 .23 fell more than .08 below .33"
    assert (rolled.facts["from_version"], rolled.facts["to_version"], rolled.facts["batch_id"]) == ("v9", "v5", "b4")
    assert [c.version for c in run.of("control")] == ["v3", "v5", "v7", "v9", "v5"]
    row = run.row("b4")
    assert (row.state, row.rolled_back, row.next_version) == ("ROLLED_BACK", True, "v5")
    assert run.state.core.health.window == []
    run.heal("b5", 5, "v11", 0.1)
    assert run.request().base_version == "v5"
    assert run.row("b5").action == "heal"  # the window starts again: two more updates to go


def test_the_best_version_is_kept_when_it_is_the_active_one() -> None:
    run = Run(setup(thresholds=Thresholds(rollback_f1_drop=0.0)))
    for k, (version, f1) in enumerate([("v3", 0.4), ("v5", 0.1), ("v7", 0.5)], start=1):
        run.heal(f"b{k}", k, version, f1)
    assert run.state.core.active == "v7"
    assert "rolled-back" not in run.kinds()
    assert run.state.core.health.window == []


def test_batches_without_a_heal_are_evidence_where_the_active_version_served_them() -> None:
    run = Run()
    run.heal("b1", 1, "v3", 0.9, accuracy=0.9)
    wrong = (0.1, 0.9, 0.9, 0.9)
    for k in range(2, 5):
        run(prediction(f"b{k}", wrong, k=k, version="v1"), labels(f"b{k}"))
    assert len(run.state.core.health.window) == 1
    run.heal("b5", 5, "v5", 0.85, accuracy=0.9)
    run(prediction("b6", wrong, k=6, version="v5"), labels("b6"))
    row = run.row("b6")
    assert (row.action, row.state, row.rolled_back, row.next_version) == ("rollback", "ROLLED_BACK", True, "v3")


@pytest.mark.parametrize("by_time", [False, True])
def test_a_heal_that_fails_changes_nothing(by_time: bool) -> None:
    run = Run()
    run(prediction("b1", conflicts=9), labels("b1"))
    if by_time:
        run.all += expired(run.state, AT, 60.0)
        assert run.of("events")[-1].message == "batch 1: heal given up, no outcome within 60 s; is a healer running?"
        assert run(finished("heal-1", "v3")) == []  # too late: not adopted
        assert run.state.core.counters["late_outcomes"] == 1
    else:
        run(event("heal-failed", request_id="heal-1", reason="rows-gone"))
    row = run.row("b1")
    assert (row.action, row.settled, row.next_version, row.state) == ("heal-failed", True, "v1", "HEALTHY")
    assert run.of("control") == []
    run(prediction("b2", k=2, conflicts=9), labels("b2"))
    assert run.request().request_id == "heal-2"


def test_outcomes_nobody_waits_for_are_not_adopted() -> None:
    run = Run()
    run(finished("by-hand", "v3"), event("heal-failed", request_id="by-hand", reason="?"))
    assert run.all == []
    assert run.state.core.counters == {"late_outcomes": 2}


def test_its_own_events_and_those_for_people_are_passed_over() -> None:
    run = Run()
    run(prediction("b1", conflicts=9), labels("b1"))
    before = len(run.all)
    run(event("heal-failed", service="monitor", request_id="heal-1"), event("service-started", pid=1))
    assert len(run.all) == before


def test_a_version_that_a_scorer_refuses_is_taken_back() -> None:
    run = Run()
    run.heal("b1", 1, "v3", 0.5)
    run.heal("b2", 2, "v5", 0.6)
    run(event("adapter-rejected", "scorer", version="v5", reason="sha256 differs", field="sha256"))
    assert run.state.core.active == "v3"
    assert run.of("events")[-1].message == "rolled back v5 -> v3: a scorer refused v5 (sha256 differs)"
    run(event("adapter-rejected", "scorer", version="v3", reason="made for another bundle", field="bundle"))
    assert run.state.core.active == "v3"  # that scorer is the one at fault
    run(event("adapter-rejected", "scorer", version="v3", reason="NaN", field=None))
    assert run.state.core.active == "v1"
    assert list(run.state.registry) == []


def test_impatience_judges_with_whatever_labels_came() -> None:
    run = Run(setup(label_patience=2))
    run(prediction("b1", k=1, conflicts=9), labels("b1", (1,), of=["b1-0"], offset=4))
    run(prediction("b2", k=2), prediction("b3", k=3))
    request = run.request()
    assert (request.batch_id, [r.start for r in request.labels]) == ("b1", [4])
    assert (run.row("b1").labelled, run.row("b1").accuracy_healed) == (1, None)
    run(finished("heal-1", "v3", f1=None, accuracy=None))
    assert (run.row("b1").settled, run.row("b1").next_version, run.state.registry) == (True, "v3", {})
    run(prediction("b4", k=4))
    assert (run.row("b2").settled, run.row("b2").action) == (True, "none")
    run(labels("b1", (1, 0, 0, 0)))  # late labels still complete the row
    row = run.row("b1")
    assert (row.settled, row.accuracy_healed, row.action, row.labelled) == (True, 1.0, "heal", 4)
    assert len(run.of("heal-requests")) == 1


def test_lockstep_runs_on_the_streams_time() -> None:
    run = Run()
    for k in range(1, 4):
        run(prediction(f"b{k}", k=k, v14=-2.0, lockstep=True), labels(f"b{k}"))
    run(finished("heal-3", "v3"))
    assert {e.at for e in run.of("events")} == {stamp(3)}
    assert run.of("control")[0].at == stamp(3)


def test_a_thinned_monitor_reads_by_the_key_and_says_so() -> None:
    run = Run()
    run.state.core.share = 0.25
    for k in range(100):
        read = is_read(b"b%d" % k, 0, 0.25)
        whole = prediction(f"b{k}", k=k)
        run(whole if read else whole._replace(value=b"never decoded"))
        run(labels(f"b{k}") if read else labels(f"b{k}")._replace(value=b"never decoded"))
    picked = [k for k in range(100) if is_read(b"b%d" % k, 0, 0.25)]
    assert run.state.core.batches == len(picked) > 0
    assert {run.row(f"b{k}").thinning for k in picked} == {0.25}
    assert all(run.row(f"b{k}").settled for k in picked)


def test_thinning_spares_lockstep_and_batches_read_before() -> None:
    run = Run()
    late = next(f"b{k}" for k in range(100) if not is_read(b"b%d" % k, 0, 0.25))
    run(prediction(late))
    run.state.core.share = 0.25
    run(labels(late))
    assert run.row(late).settled
    other = f"{late}x" if not is_read(f"{late}x".encode(), 0, 0.25) else f"{late}y"
    run(labels(other)._replace(headers=LOCKSTEP), prediction(other, lockstep=True))
    assert (run.row(other).settled, run.row(other).thinning) == (True, 1.0)


def test_unusable_events_are_refused() -> None:
    run = Run()
    run(prediction("b1", conflicts=9), labels("b1"))
    with pytest.raises(Refused, match="post_version"):
        run(event("heal-finished", request_id="heal-1"))
    assert run.state.core.heal is not None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"bundle": "c" * 64}, "bundle"),
        ({"transaction_ids": []}, "transaction_ids"),
        ({"probability": [0.5]}, "probability"),
        ({"shadow_probability": [0.5] * 5}, "shadow_probability"),
        ({"probability": [0.5, 0.5, 0.5, 1.5]}, r"probability\[3\]"),
        ({"flag": [1]}, "flag"),
        ({"feature_sums": [1.0]}, "feature_sums"),
        ({"source": {"topic": "t", "partition": 0}}, "source"),
    ],
)
def test_predictions_that_cannot_be_judged_are_refused_and_change_nothing(wrong: dict[str, Any], field: str) -> None:
    run = Run()
    with pytest.raises(Refused, match=f"^{field}"):
        run(prediction("b1", wrong=wrong))
    assert run.state.core.batches == 0
    assert not run.state.touched


def test_labels_that_cannot_be_joined_are_refused() -> None:
    run = Run()
    for bad in (labels("b1", (1, 2)), labels("b1", of=["a", "a"], given=(1, 1)), labels("b1", of=["a"], given=(1, 1))):
        with pytest.raises(Refused, match=r"labels|transaction_ids"):
            run(bad)
    with pytest.raises(Refused, match="at most"):
        run(labels("b1")._replace(value=b" " * 3_000_000))
    assert not run.state.early
