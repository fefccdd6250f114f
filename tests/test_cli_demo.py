"""The demo's story: three drifts, the picture at any size, what any model could do, a report that says what it cost."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from producer.sources import Synthetic
from selfheal import demo_report
from selfheal.acts import Act, Plan, truth
from selfheal.demo_picture import picture
from selfheal.document import as_html, as_markdown
from selfheal.story import Outcome, Story
from selfheal.story_words import evidence, explanation
from selfheal.view import batch_line, event_line, lift_bar, view, z_bar
from shared.bundle import Costs
from shared.records import Event, Metrics, Prediction, Source

PLAN = Plan(
    batches=40, rows=100, acts=(
        Act("other units", 6, 13, ("unit:V14:10",), "Ten times the number."),
        Act("dark field", 16, 21, ("outage:V14:0",), "The field is 0."),
        Act("false friends", 26, 40, ("prior:0.06", "mimic:0.4"), "Honest customers look like fraud."),
    ),
)  # fmt: skip
TRUTH = truth(PLAN)
EFFECT = {"before": [0.64, 0.37], "after": [0.93, 0.14], "gain_worst": [0.25, 0.1], "gain_best": [0.3, 0.2]}


def row(idx: int, **more: object) -> Metrics:
    values: dict[str, Any] = {
        "accuracy_healed": 0.94, "accuracy_shadow": 0.94, "acc_lift": 0.0, "cost_healed": 0.13, "cost_shadow": 0.13,
        "alarm_z": 2.0, "settled": True, **more,
    }  # fmt: skip
    return Metrics(
        batch_idx=idx, batch_id=f"b{idx}", timestamp="t", rows=100, z_score=0.1, n_conflicts=0,
        **values,
    )  # fmt: skip


def said(kind: str, idx: int, message: str = "what happened", **facts: object) -> Event:
    """By the healer under a batch's id, by the monitor under its number."""
    healer = kind in ("diagnosed", "heal-finished")
    where = {"batch_id": f"b{idx}"} if healer else {"batch_id": f"b{idx}", "batch_idx": idx}
    return Event(
        at="t", kind=kind, message=message, service="healer" if healer else "monitor", facts={**where, **facts}
    )


def script() -> list[tuple[int, Callable[[Story], object]]]:
    """(batch, step): healed at 7 until 13, refused at 17, wrongly repaired at 27 and taken back at 33."""

    def event(
        kind: str, idx: int, message: str = "what happened", **facts: object
    ) -> tuple[int, Callable[[Story], object]]:
        return idx, lambda story: story.add_event(said(kind, idx, message, **facts))

    steps = []
    for idx in range(1, PLAN.batches + 1):
        by = "v2" if 8 <= idx <= 14 else "v5" if 28 <= idx <= 33 else "v1"
        served = (
            {"accuracy_healed": 0.6, "accuracy_shadow": 0.7, "acc_lift": -0.1, "cost_healed": 0.5} if by == "v5" else {}
        )
        if by == "v2":
            served = {"accuracy_shadow": 0.64, "acc_lift": 0.3, "cost_shadow": 0.37}
        made = row(idx, adapter_version=by, next_version=by, alarm_z=9.0 if idx in (6, 7, 16, 17) else 2.0, **served)
        steps.append((idx, lambda story, made=made: story.add_row(made)))
    return sorted([
        *steps,
        event("alarm", 6, "V14 no longer follows the reference", threshold=4.5),
        event("heal-finished", 7, "V14 arrives x10; undone by v2", purpose="diagnose", verdict="units", effect=EFFECT),
        event("adapter-activated", 7, "v2 activated", reason="heal", verdict="units"),
        event("drift-ended", 14, "drift has ended", version="v1", reason="drift-ended"),
        event("alarm", 16), event("diagnosed", 17, "refused: V14 sends one value", verdict="outage", reason="gone"),
        event("diagnosed", 18, "refused again", verdict="outage", reason="gone"),
        event("alarm", 26),
        event("heal-finished", 27, "fraud rate 15% -> 45%", purpose="diagnose", verdict="fraud-rate", effect=EFFECT),
        event("adapter-activated", 27, "v5 activated", reason="heal", verdict="fraud-rate"),
        event("rolled-back", 33, "rolled back v5 -> v1: on labelled rows ..", reason="labels", verdict="fraud-rate"),
    ], key=lambda step: step[0])  # fmt: skip


def told(until: int) -> Story:
    story = Story(PLAN, TRUTH)
    for idx, step in script():
        if idx <= until:
            step(story)
    return story


def test_each_drift_has_the_outcome_that_the_topics_tell() -> None:
    assert [c.outcome for c in told(40).chapters] == [Outcome.HEALED, Outcome.REFUSED, Outcome.TAKEN_BACK]
    assert [c.outcome for c in told(27).chapters] == [Outcome.HEALED, Outcome.REFUSED, Outcome.HEALED]
    assert [c.outcome for c in told(16).chapters] == [Outcome.HEALED, Outcome.SEEN, Outcome.AHEAD]
    quiet = Story(PLAN, TRUTH)
    quiet.add_row(row(8))
    assert quiet.chapters[0].outcome == Outcome.UNSEEN


@pytest.mark.parametrize(
    ("until", "words"),
    [
        (0, "Every column of every batch is held against training"), (5, "right about 94% of them"),
        (6, "The monitor has noticed"), (8, "no label was needed"), (15, "Healed while it lasted, and taken out"),
        (18, "The field is 0. No repair can be read off the rows"), (23, "Refused, rightly left alone"),
        (35, "Labels were the judge"),
    ],
)  # fmt: skip
def test_a_newcomer_is_told_what_happens_now(until: int, words: str) -> None:
    assert words in explanation(told(until))


def test_the_evidence_of_a_chapter_comes_in_order_with_its_numbers() -> None:
    story = told(40)
    healed, refused, back = ([*evidence(story, c)] for c in story.chapters)
    assert [what for what, _ in healed] == ["alarm", "verdict units", "estimated before", "measured", "", "drift ended"]
    words = dict(healed)
    assert words["alarm"].startswith("on drifted batch 1: ")
    assert words["estimated before"] == (
        "without labels: accuracy .640 -> .930, a gain of +.250 to +.300; cost .370 -> .140"
    )
    assert words["measured"].startswith("accuracy .940 served, .640 frozen, ")
    assert words["measured"].endswith("flagging nobody (6 batches)")
    assert [what for what, _ in refused] == ["alarm", "verdict outage", "measured", ""]
    assert [what for what, _ in back][-1] == "taken back"
    assert "cost .500 served, .130 frozen" in dict(back)[""]


def test_nothing_is_told_twice_and_no_lesson_before_it_counts() -> None:
    story = told(18)
    assert [e.message for e in story.told if e.kind == "diagnosed"] == ["refused: V14 sends one value"]
    assert not story.add_event(said("heal-finished", 18, purpose="learn"))
    assert not story.add_event(said("heal-requested", 18))
    assert not story.add_event(said("drift-ended", 18, "V14 is back"))  # FIDI's
    assert story.add_event(said("adapter-activated", 18, "v9 learned", reason="learned"))
    assert story.chapters[1].learned is not None
    late = told(36)
    assert not late.add_event(said("heal-finished", 36, purpose="diagnose", verdict="fraud-rate"))
    assert late.add_event(said("adapter-rejected", 36, verdict="fraud-rate"))
    assert not late.add_event(said("adapter-rejected", 37, verdict="fraud-rate"))


def test_all_is_known_of_a_batch_once() -> None:
    story = Story(PLAN, TRUTH)
    unlabelled = Metrics(
        batch_idx=1, batch_id="b", timestamp="t", rows=100, z_score=None, n_conflicts=0, settled=True
    )  # fmt: skip
    assert [story.add_row(unlabelled), story.add_row(row(1)), story.add_row(row(1))] == [False, True, False]


def test_the_truth_is_of_the_rows_that_the_producer_sends() -> None:
    source = Synthetic(PLAN.seed, PLAN.rows, PLAN.steps)
    for k in (1, 6, 16, 30):
        np.testing.assert_array_equal(TRUTH[k].labels, source.batch(k).labels)
    np.testing.assert_allclose(TRUTH[16].oracle, 0.15)  # the field that tells is dark: the fraud rate is all there is


def test_bayes_knows_mimics() -> None:
    """By brute force: among rows that look alike, the share of fraud is what the oracle says."""
    plan = Plan(batches=60, rows=1_000, acts=(Act("x", 1, 60, ("prior:0.1", "mimic:0.5"), ""),))
    found = truth(plan)
    p = np.concatenate([t.oracle for t in found.values()])
    y = np.concatenate([t.labels for t in found.values()])
    for low, high in ((0.0, 0.02), (0.05, 0.1), (0.1, 0.15), (0.15, 0.19)):
        among = (p > low) & (p <= high)
        assert among.sum() > 300
        assert y[among].mean() == pytest.approx(p[among].mean(), abs=4 * (0.1 / among.sum()) ** 0.5)
    assert p.max() < 0.1 / (0.1 + 0.9 * 0.5) + 1e-9


@pytest.mark.parametrize(("width", "height"), [(80, 24), (104, 30), (160, 60)])
@pytest.mark.parametrize("until", [0, 1, 8, 18, 40])
def test_the_picture_fits_the_terminal(width: int, height: int, until: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    story = told(until)
    lines = console.render_lines(view(story, width=width, height=height, elapsed_s=12.0))
    assert len(lines) <= height
    text = "\n".join("".join(segment.text for segment in one) for one in lines)
    assert f"batch {until} of 40" in text
    if until == 8:
        assert "verdict units" in text
        assert "+.300" in text
    if until == 40:
        assert "false friends: taken back" in text
        assert ("the drift begins" in text) == (height > 30)  # older batches make room


def test_bars() -> None:
    assert z_bar(None, 1.0, 8).plain == "········    -"
    assert z_bar(0.5, 1.0, 8).plain == "██··│···  0.5"
    assert z_bar(44.0, 4.5, 8).plain == "████│███ 44.0"
    assert z_bar(1.0, 2.0, 8).plain == "██··│···  1.0"
    assert lift_bar(0.2, 4).plain == "    │██   +.200"
    assert lift_bar(-0.1, 4).plain == "   █│     -.100"
    assert lift_bar(0.9, 4).plain == "    │████ +.900"
    assert lift_bar(None, 4).plain.strip().startswith("│")


def test_plain_lines_name_what_happened() -> None:
    story = told(40)
    assert batch_line(story.rows[6], story).endswith("the drift begins")
    assert "accuracy .940 served, .640 frozen (+.300)  cost .130, .370 frozen  by v2" in batch_line(
        story.rows[9], story
    )
    back = row(33, adapter_version="v5", rolled_back=True, next_version="v5")
    assert batch_line(back, story).endswith("v5 taken back")
    assert event_line(said("alarm", 6)).plain == " alarm             what happened"


def predictions() -> dict[int, Prediction]:
    """Served: always right about who is riskier; frozen: no idea."""
    found = {}
    for k, truth_ in TRUTH.items():
        served = np.where(truth_.labels == 1, 0.9, 0.1)
        found[k] = Prediction(
            batch_id=f"b{k}", transaction_ids=[], probability=served.tolist(), shadow_probability=[0.05] * PLAN.rows,
            adapter_version="v2", bundle="b", source=Source(topic="t", partition=0, offset=0), created_at="t", rule=[],
            flag=[], conflicts=0, feature_sums=[], feature_squares=[],
        )  # fmt: skip
    return found


def test_every_figure_beside_frozen_oracle_and_nobody() -> None:
    lines = {line.name: line for line in demo_report.table(told(40), predictions(), 6, 13)}
    served, frozen, nobody = lines["as served"], lines["frozen"], lines["flagging nobody"]
    assert (served.accuracy, served.f1, served.cost, served.at_k) == (1.0, 1.0, 0.0, 1.0)
    frauds = [TRUTH[k].labels.sum() for k in range(6, 14)]
    assert served.at_budget == pytest.approx(np.mean([10 / n for n in frauds]))
    assert frozen.cost == nobody.cost == pytest.approx(5 * np.mean(frauds) / 100)
    assert (nobody.at_k, nobody.at_budget) == (None, None)
    best = lines["best possible"]
    assert best.accuracy == pytest.approx(np.mean([TRUTH[k].best(Costs())[0] for k in range(6, 14)]))
    assert demo_report.table(told(40), {}, 6, 13) == []


def test_the_report_tells_the_three_in_one_file_that_needs_no_other() -> None:
    story = told(40)
    blocks = demo_report.document(story, predictions(), picture(story), ["metrics.csv"])
    text, page = as_markdown(blocks), as_html(blocks)
    assert "## 1. Other units, batches 6 to 13: healed, without labels" in text
    assert "## 2. Dark field, batches 16 to 21: refused: not healable without labels" in text
    assert "## 3. False friends, batches 26 to 40: a repair taken back on the evidence of labels" in text
    assert "No false alarm." in text
    assert "![Accuracy and cost per batch over three drifts (other units: healed, dark field: refused" in text
    assert 'src="data:image/png;base64,' in page
    assert 'name="viewport"' in page
    assert "http" not in page
    assert "<script" not in page


def test_false_alarms_are_owned_up_to() -> None:
    story = told(40)
    story.add_event(said("alarm", 3))
    assert demo_report.false_alarms(story) == "1 false alarm."
