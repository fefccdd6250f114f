"""The demo's story: phases, the picture at any size, a report that says what it cost."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from selfheal import demo_report
from selfheal.experiment.ceiling import ceiling
from selfheal.story import Phase, Plan, Story
from selfheal.view import batch_line, lift_bar, view, z_bar
from shared.records import Event, Metrics

PLAN = Plan(batches=30, drift_from=6)


def row(idx: int, *, served: float, frozen: float, by: str = "v1", then: str | None = None, **more: object) -> Metrics:
    return Metrics(
        batch_idx=idx, batch_id=f"b{idx}", timestamp="t", rows=100, z_score=idx / 10, n_conflicts=idx,
        accuracy_healed=served, accuracy_shadow=frozen, acc_lift=served - frozen, precision_healed=0.2,
        precision_shadow=0.2, recall_healed=0.3, recall_shadow=0.8, f1_healed=0.25, f1_shadow=0.3, cost_healed=0.76,
        cost_shadow=0.71, adapter_version=by, next_version=then or by, settled=True, **more,
    )  # fmt: skip


def asked(idx: int) -> Event:
    facts = {"batch_idx": idx}
    return Event(at="t", kind="heal-requested", message=f"batch {idx}: heal asked, 6 conflicts", facts=facts)


def told(until: int) -> Story:
    """Clean to 5, drift from 6, a heal asked at 8, served by v3 from 9 on, v5 rolled back at 12."""
    story = Story(PLAN)
    for idx in range(1, until + 1):
        if idx < 6:
            story.add_row(row(idx, served=0.94, frozen=0.94))
        elif idx < 9:
            heals = {"action": "heal", "then": "v3"} if idx == 8 else {}
            story.add_row(row(idx, served=0.45, frozen=0.45, **heals))
            if idx == 8:
                story.add_event(asked(8))
        elif idx == 12:
            story.add_row(
                row(12, served=0.7, frozen=0.45, by="v5", then="v3", action="heal+rollback", rolled_back=True)
            )
        else:
            story.add_row(row(idx, served=0.7, frozen=0.45, by="v3"))
    return story


@pytest.mark.parametrize(
    ("until", "phase", "words"),
    [
        (0, Phase.CLEAN, "over 1 would mean drift"), (5, Phase.CLEAN, "right about 94% of them"),
        (7, Phase.DRIFT, "right about only 45% of them"), (8, Phase.HEAL, "Now served: v3"),
        (10, Phase.HEAL, "8,321"), (12, Phase.LIFT, "70% as served, 45% frozen"),
    ],
)  # fmt: skip
def test_phases_and_their_words(until: int, phase: Phase, words: str) -> None:
    story = told(until)
    assert story.phase == phase
    assert words in story.explanation()


def test_noticed_but_not_healed_yet() -> None:
    story = told(7)
    story.add_event(asked(7))
    assert story.phase == Phase.DETECT
    assert "batch 7: heal asked, 6 conflicts" in story.explanation()


def test_a_false_alarm_before_the_drift_is_no_detection() -> None:
    story = told(7)
    story.add_event(asked(3))
    assert story.first_sign() is None
    assert "False alarms: 1" in "\n".join(demo_report.told(story))


def test_a_batch_settles_once() -> None:
    story = Story(PLAN)
    waiting = Metrics(batch_idx=1, batch_id="b", timestamp="t", rows=100, z_score=None, n_conflicts=0)
    settled = row(1, served=1, frozen=1)
    assert [story.add_row(waiting), story.add_row(settled), story.add_row(settled)] == [False, True, False]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (104, 30), (160, 60)])
@pytest.mark.parametrize("until", [0, 1, 8, 30])
def test_the_picture_fits_the_terminal(width: int, height: int, until: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    story = told(until)
    lines = console.render_lines(view(story, width=width, height=height, elapsed_s=12.0))
    assert len(lines) <= height
    text = "\n".join("".join(segment.text for segment in one) for one in lines)
    assert f"batch {until} of 30" in text
    if until == 30:
        assert ("taken back: v3" in text) == (height == 60)  # older batches make room
        assert "+.250" in text


def test_bars() -> None:
    assert z_bar(None, 1.0, 8).plain == "········    -"
    assert z_bar(0.5, 1.0, 8).plain == "██··│··· 0.50"
    assert z_bar(9.0, 1.0, 8).plain == "████│███ 9.00"
    assert z_bar(1.0, 2.0, 8).plain == "██··│··· 1.00"
    assert lift_bar(0.2, 4).plain == "    │██   +.200"
    assert lift_bar(-0.1, 4).plain == "   █│     -.100"
    assert lift_bar(0.9, 4).plain == "    │████ +.900"
    assert lift_bar(None, 4).plain.strip().startswith("│")


def test_plain_lines_name_what_happened() -> None:
    story = told(12)
    assert batch_line(story.rows[12], story).endswith("by v5  taken back: v3")
    assert "accuracy .700 served, .450 frozen (+.250)" in batch_line(story.rows[11], story)
    assert batch_line(story.rows[6], story).endswith("the drift begins")


def test_the_report_does_not_flatter() -> None:
    story, possible = told(30), ceiling(2.2)
    text = demo_report.as_markdown(story, possible, ["metrics.csv"])
    assert "Noticed on drifted batch 3: batch 8: heal asked, 6 conflicts." in text
    assert "better than the frozen network in 22 of 22 batches" in text
    assert "By cost it was dearer than doing nothing: 0.760 instead of 0.710" in text
    assert "it found 30% of the fraud instead of 80%" in text
    lines = {line.name: line for line in demo_report.table(story, possible)}
    assert lines["clean, batches 1 to 5"].accuracy == pytest.approx(0.94)
    assert lines["drift, as served, the same batches"].accuracy == pytest.approx((3 * 0.45 + 22 * 0.7) / 25)
    nobody = lines["flagging nobody (15% are fraud)"]
    assert (nobody.accuracy, nobody.f1, nobody.cost) == pytest.approx((0.85, 0.0, 0.75))
    best = next(line for name, line in lines.items() if name.startswith("the best any model"))
    assert best.f1 == pytest.approx(0.295, abs=0.001)


def test_the_report_of_a_run_in_which_nothing_was_noticed() -> None:
    text = "\n".join(demo_report.told(told(7)))
    assert "noticed nothing" in text
    assert "0 heals" in text
