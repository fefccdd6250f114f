"""Policy guarded, folded by hand: what is asked, put in force, refused, learned and taken back, and on what grounds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from drifting import V14, batches, moved, profile
from monitor_kit import AT, Run, event, labels, prediction, setup, stamp

from monitor.bounds import too_far
from monitor.decide import fold
from monitor.fidi import Calibration
from monitor.outcomes import policy_changed
from monitor.setup import Guarding, Setup
from shared.alignment import Floats
from shared.errors import Refused
from shared.settings import MonitorSettings

P = profile()
NAMES = [f"V{i}" for i in range(P.d)]
FRAUD, NORMAL = 0.9, 0.05  # probabilities of a network that says yes and no


@functools.cache
def guarding() -> Guarding:
    return Guarding.over(P, MonitorSettings(policy="guarded"))


def guarded() -> Setup:
    return setup(
        policy="guarded", guarding=guarding(),
        calibration=Calibration(NAMES, V14, [0.0] * P.d, [1.0] * P.d),
    )  # fmt: skip


class Stream(Run):
    """Batches of policy guarded, and the healer's answers by hand."""

    def __init__(self) -> None:
        super().__init__(guarded())
        self.k = 0

    def batch(
        self, x: Floats | None, *, rows: int = 100, served: Sequence[float] | None = None,
        frozen: Sequence[float] | None = None, candidate: Sequence[float] | None = None,
    ) -> str:  # fmt: skip
        """x: the rows, None where they are gone. Returns the batch's id."""
        self.k += 1
        n = rows if x is None else len(x)
        served = [NORMAL] * n if served is None else served
        wrong = {} if candidate is None else {"candidate_probability": list(candidate)}
        record = prediction(
            f"b{self.k}", served, k=self.k, shadow=frozen, version=self.state.core.active, features=P.d, lockstep=True,
            wrong=wrong,
        )  # fmt: skip
        self.all += fold(self.state, self.setup, record, AT, None if x is None else x.astype(np.float32))
        return f"b{self.k}"

    def batches(self, blocks: Sequence[Floats]) -> None:
        for x in blocks:
            self.batch(x)

    def found(self, *, promote: bool = True, verdict: str = "shift", amount: float = -2.2, **more: Any) -> None:
        """The healer's answer to the newest request: V14 moved by this much."""
        shift = [0.0] * P.d
        shift[V14] = amount
        facts = {
            "request_id": self.request().request_id, "verdict": verdict, "n_blocks": 2, "promote": promote,
            "active_fits": False, "fraud_rate": P.fraud_rate, "shift": shift, "scale": [1.0] * P.d,
            "flagged_before": 0.6, "flagged_after": 0.14,
        }  # fmt: skip
        if promote:
            facts["post_version"] = f"v{self.k}"
        self(event("heal-finished" if promote else "diagnosed", **{**facts, **more}))

    def healed(self, amount: float = -2.2) -> str:
        """Drift, a request, and its repair in force: the version."""
        self.batches(moved(batches(self.k + 1, 2), amount))
        self.found(amount=amount)
        assert self.state.core.active == f"v{self.k}"
        return self.state.core.active

    def taught(self, won: int = 0, lost: int = 0, **more: Any) -> None:
        """The healer's lesson to the newest request; won, lost: normal rows."""
        facts = {
            "request_id": self.request().request_id, "purpose": "learn", "post_version": f"v{100 + self.k}",
            "tally": {"won_fraud": 0, "lost_fraud": 0, "won_normal": won, "lost_normal": lost},
            "fresh_labelled": 500, "log_loss_base": 20.0, "log_loss_active": 30.0,
        }  # fmt: skip
        self(event("heal-finished", **{**facts, **more}))

    def label(self, name: str, y: Sequence[int], kind: str = "delayed", of: Sequence[int] | None = None) -> None:
        at = range(len(y)) if of is None else of
        record = labels(name, [y[i] for i in at], of=[f"{name}-{i}" for i in at], offset=1000 + self.k)
        value = (record.value or b"").replace(b'"delayed"', f'"{kind}"'.encode())
        self(record._replace(value=value))

    def message(self, kind: str) -> str:
        """Of the newest event of the kind."""
        found: str = [e.message for e in self.of("events") if e.kind == kind][-1]
        return found

    def control(self, which: str) -> list[str | None]:
        return [c.version for c in self.of("control") if c.setting == which]


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
