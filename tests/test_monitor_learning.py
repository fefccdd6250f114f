"""Policy guarded, folded by hand: what is learned from labels, put on trial, promoted and taken back."""

from __future__ import annotations

from typing import Any

from drifting import batches, moved
from guarded_stream import FRAUD, NORMAL, Stream
from monitor_kit import event


def refused(run: Stream, blocks: int = 2) -> None:
    """Drift that the healer cannot undo: learning is open."""
    run.batches(moved(batches(run.k + 1, blocks), -2.2))
    run.found(promote=False, verdict="unexplained", since_batch_idx=1)


def test_a_refused_drift_is_learned_from_complete_batches() -> None:
    run = Stream()
    refused(run)
    assert run.state.learning.opened == "verdict"
    run.label("b1", [0] * 100)
    run.label("b2", [0] * 99, of=range(99))  # not complete
    while run.state.core.heal is None or run.state.core.heal.purpose != "learn":
        run.batch(moved(batches(run.k, 1), -2.2)[0])
        if run.request().purpose == "diagnose" and run.state.core.heal is not None:
            run.found(promote=False, verdict="unexplained")
        assert run.k < 20
    asked = run.request()
    assert (asked.base_version, asked.fresh, asked.parameters) == ("v1", 1, {"active_version_number": 1})
    assert [t.start for t in asked.transactions] == [1]
    assert [r.start for r in asked.labels] == [1002]
    run.taught()
    assert run.control("candidate") == [f"v{100 + run.k}"]
    row = run.row(asked.batch_id)
    assert (row.action, row.settled) == ("learn", True)


def lesson(run: Stream, candidate: float = NORMAL, **taught: Any) -> None:
    """Batches with labels until the next lesson is asked, and its answer."""
    asked = len(run.of("heal-requests"))
    while True:
        tail = [FRAUD] * 20
        x = moved(batches(run.k, 1), -2.2)[0]
        name = run.batch(x, served=[NORMAL] * 80 + tail, candidate=[candidate] * 80 + tail)
        run.label(name, [0] * 100)
        if len(run.of("heal-requests")) > asked and run.state.core.heal is not None:
            if run.request().purpose == "learn":
                return run.taught(**taught)
            asked += 1
            run.found(promote=False, verdict="unexplained")
        assert run.k < 60


def test_a_candidate_is_promoted_when_evidence_and_log_loss_agree() -> None:
    run = Stream()
    refused(run)
    lesson(run)
    assert run.state.learning.trial is not None
    lesson(run, won=5)  # log loss is the lower one, the evidence too little
    assert run.state.core.active == "v1"
    lesson(run, won=40, log_loss_base=90.0)  # the evidence is enough, the line's log loss the higher one
    assert run.state.core.active == "v1"
    assert run.row(f"b{run.k}").evidence is not None
    lesson(run, log_loss_active=150.0)
    version = f"v{100 + run.k}"
    assert run.state.core.active == version
    assert run.row(f"b{run.k}").action == "promote"
    assert run.message("adapter-activated").startswith(f"{version} activated, learned from labels: against v1 its line")
    assert run.control("candidate")[-1] is None
    lesson(run)
    assert run.request().base_version == version
    assert run.request().parameters == {"active_version_number": int(version[1:])}


def test_a_candidate_is_not_promoted_on_fewer_than_a_thousand_new_rows() -> None:
    run = Stream()
    refused(run)
    lesson(run)
    lesson(run, won=60, fresh_labelled=499)
    assert run.state.core.active == "v1"
    assert "promote" not in [run.row(f"b{k}").action for k in range(1, run.k + 1)]
    lesson(run, fresh_labelled=1)
    assert run.row(f"b{run.k}").action == "promote"


def test_a_candidate_that_decides_worse_at_the_flag_threshold_is_not_promoted() -> None:
    run = Stream()
    refused(run)
    lesson(run)
    lesson(run, won=60, right_base=440, right_active=450)
    assert run.state.core.active == "v1"
    lesson(run, right_base=460, right_active=450)
    assert run.row(f"b{run.k}").action == "promote"


def test_a_candidate_whose_newest_rows_speak_against_it_is_not_promoted() -> None:
    run = Stream()
    refused(run)
    lesson(run, won=200)
    lesson(run, lost=130, fresh_labelled=600)  # the line's evidence is still enough, the log loss still lower
    assert run.state.learning.trial is not None
    assert run.state.learning.trial.rows >= 1_000
    assert run.row(f"b{run.k}").evidence > 3.0
    assert run.state.core.active == "v1"


def test_a_candidate_that_floods_the_alerts_is_held_back_and_that_is_said_once() -> None:
    run = Stream()
    refused(run)
    for _ in range(4):
        lesson(run, candidate=FRAUD, won=40)
    assert run.state.core.active == "v1"
    assert run.kinds().count("adapter-rejected") == 1
    assert "it would alert on 100.0% of the transactions" in run.message("adapter-rejected")


def test_a_line_that_labels_speak_against_is_dropped() -> None:
    run = Stream()
    refused(run)
    lesson(run)
    lesson(run, lost=60)
    assert run.state.learning.trial is None
    assert run.control("candidate")[-1] is None
    lesson(run)
    assert run.request().base_version == "v1"


def promoted() -> Stream:
    run = Stream()
    refused(run)
    lesson(run)
    lesson(run, won=60)
    assert run.state.learning.overlay == run.state.core.active != "v1"
    return run


def test_what_was_learned_for_a_drift_goes_when_the_drift_is_over() -> None:
    run = promoted()
    version = run.state.core.active
    for x in batches(900, 40):
        run.batch(x)
        if run.state.core.heal is not None and run.request().purpose == "learn":
            run.taught()
        elif run.state.core.heal is not None:
            run.found(promote=False, verdict="none", n_blocks=2)
    assert run.state.core.active == "v1"
    assert run.state.learning.opened == ""
    assert run.message("drift-ended") == f"drift has ended (what labels were needed for): back from {version} to v1"


def test_what_was_learned_goes_with_the_state_it_was_learned_under() -> None:
    run = promoted()
    while run.state.core.heal is None or run.request().purpose != "diagnose":
        run.batch(moved(batches(run.k, 1), -2.2)[0])
    run.found()
    assert run.state.core.active == f"v{run.k}"
    assert run.state.learning.overlay is None
    assert run.state.learning.opened == ""


def test_labels_take_a_learned_version_back_to_what_it_was_learned_over() -> None:
    run = promoted()
    version = run.state.core.active
    name = run.batch(moved(batches(5, 1), -2.2)[0], served=[FRAUD] * 100, frozen=[NORMAL] * 100)
    if run.state.core.heal is not None:
        run.found(promote=False, verdict="unexplained")
    run.label(name, [0] * 100)
    assert run.state.core.active == "v1"
    assert run.message("rolled-back").startswith(f"rolled back {version} -> v1")
    before = run.state.core.batches
    lesson(run)
    lesson(run, won=60)
    assert run.state.core.batches < before + 20
    assert run.state.core.active == "v1"  # cooldown


def test_a_version_that_no_scorer_can_load_is_taken_back() -> None:
    run = promoted()
    version = run.state.core.active
    run(event("adapter-rejected", "scorer", version=version, reason="shape"))
    assert run.state.core.active == "v1"
    assert run.message("rolled-back") == f"rolled back {version} -> v1: a scorer refused {version} (shape)"
    run = Stream()
    version = run.healed()
    run(event("adapter-rejected", "scorer", version=version, reason="shape"))
    assert run.state.core.active == "v1"
    assert run.state.guarded is not None
    assert [k.name for k in run.state.guarded.guard.known] == ["v1"]


def test_a_cost_that_rises_unseen_opens_learning_by_itself() -> None:
    run = Stream()
    names = [run.batch(x) for x in batches(0, 12)]
    for name in names[:4]:
        run.label(name, [0] * 100)
    assert run.state.learning.opened == ""
    for name in names[4:]:
        run.label(name, [1] * 60 + [0] * 40)  # missed frauds, and no feature says so
    assert run.state.learning.opened == "cost"
    run.batch(batches(50, 1)[0])
    assert run.request().purpose == "learn"
    assert len(run.request().transactions) == run.request().fresh == 10


def test_a_lesson_that_fails_is_not_asked_again_of_the_same_rows() -> None:
    run = Stream()
    refused(run)
    run.label("b1", [0] * 100)
    run.label("b2", [0] * 100)
    while run.request().purpose != "learn":
        run.batch(moved(batches(run.k, 1), -2.2)[0])
        if run.request().purpose == "diagnose" and run.state.core.heal is not None:
            run.found(promote=False, verdict="unexplained")
    run(event("heal-failed", request_id=run.request().request_id, reason="rows-gone: offsets 1..2"))
    assert run.row(run.request().batch_id).action == "heal-failed"
    assert run.state.learning.complete == []
