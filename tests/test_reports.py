"""Reports as blocks, and the gauntlet's: figures in, text and pictures out."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from selfheal.document import Block, Grid, Heading, Picture, Points, Words, as_html, as_markdown
from selfheal.gauntlet import pictures, report
from selfheal.gauntlet.quiet import Quiet
from selfheal.gauntlet.summary import Figures, Way
from selfheal.gauntlet.tables import as_json
from selfheal.gauntlet.world import variant
from shared.errors import OperatorError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "healing.md"
PNG = b"\x89PNG\r\n\x1a\n"


def way(accuracy: float, cost: float) -> Way:
    return Way(accuracy=accuracy, f1=0.5, cost=cost, precision_at_k=0.8, recall_at_budget=0.6, flagged=0.2)


def found(
    name: str, *, healed: float = 0.93, recovery: float | None = 0.98, harm: float = 0.0, **more: object
) -> Figures:
    base = Figures(
        description=variant(name).scene.description, seeds=2, drifted=40,
        ways={
            "frozen": way(0.5, 0.6), "published": way(0.4, 0.7), "healed": way(healed, 0.15), "oracle": way(0.94, 0.14),
            "all_negative": way(0.85, 0.75),
        },
        recovery_mean=recovery, recovery_min=recovery, cost_recovery_mean=recovery, first_heal_median=2.0,
        first_heal_max=3.0, verdict_accuracy=0.99, verdict_last=1.0, verdict_strict=0.9,
        verdicts={"shift": 70, "none": 10}, refused=0.0, healed_seeds=2, worst_harm_accuracy=harm,
        worst_harm_cost=0.001, last_accuracy_min=0.9, heals=2, learned=0, taken_back=0,
        curve={"frozen": [0.9, 0.5], "published": [0.9, 0.4], "healed": [0.9, 0.93], "oracle": [0.9, 0.94]},
    )  # fmt: skip
    return msgspec.structs.replace(base, **more)


SCENARIOS = {
    "S1": found("S1"), "S3": found("S3", recovery=0.88), "S0": found("S0", recovery=None, first_heal_median=None),
    "S12": found("S12", recovery=0.0, refused=1.0, harm=0.004, verdicts={"unexplained": 80}), "S9L": found("S9L"),
    "S4t3": found("S4t3"),
}  # fmt: skip
QUIET = [Quiet(labelled=False, batches=10_000, false_promotions=5, false_rollbacks=2, alarms=7, served=30)]


def test_each_block_is_text_in_markdown_and_safe_in_html() -> None:
    blocks: list[Block] = [
        Heading(1, "A <title>"), Words("see `code` and **this** & that"), Points(["one", "two"]),
        Grid(["", "x"], [["a|b", ".5"], ["c", "-"]], frozenset({1})), Picture("p.png", PNG, 'says "hello"'),
        Words("small", note=True),
    ]  # fmt: skip
    text, page = as_markdown(blocks), as_html(blocks)
    assert "| a\\|b | .5 |\n| **c** | **-** |" in text
    assert '![says "hello"](p.png)' in text
    assert "<title>A &lt;title&gt;</title>" in page
    assert "see <code>code</code> and <strong>this</strong> &amp; that" in page
    assert '<tr class="strong"><td>c</td>' in page
    assert "data:image/png;base64,iVBORw0KGgo=" in page
    assert 'alt="says &quot;hello&quot;"' in page
    assert '<p class="note">small</p>' in page


def test_every_scenario_has_its_group() -> None:
    assert [report.group_of(n) for n in SCENARIOS] == [
        report.HEALED, report.HEALED, report.NOTHING, report.REFUSED, report.LABELS, report.TAILS,
    ]  # fmt: skip


def test_in_short_owns_up_to_the_worst() -> None:
    lines = report.in_short(report.Gauntlet(first_seed=1, seeds=2, scenarios=SCENARIOS, quiet={"unlabelled": QUIET[0]}))
    assert "**93%** of the lost accuracy comes back, mean of 2 kinds of drift" in lines[0]
    assert "S3 is the hardest (88%)" in lines[0]
    assert "**100.0%** of the last 20 batches of S12 are served by the frozen network" in lines[1]
    assert "**0.40 points** of accuracy (S12)" in lines[2]
    assert lines[3] == "10,000 quiet batches without labels: 0.50 false promotions and 0.20 false rollbacks per 1,000."


def test_the_report_is_written_beside_its_figures(tmp_path: Path) -> None:
    (tmp_path / "gauntlet.json").write_bytes(as_json(SCENARIOS, 1, 2, QUIET))
    page = report.write(tmp_path).read_text("utf-8")
    text = (tmp_path / "report.md").read_text("utf-8")
    for name in re.findall(r"\]\(([a-z]+\.png)\)", text):
        assert (tmp_path / name).read_bytes().startswith(PNG)
    assert page.count('src="data:image/png;base64,') == 4
    assert "http" not in page
    assert "| **Refused: only labels can help** |" in text
    assert "| S1 a field shifts | .500 | .400 | .930 | .940 | .980 | .980 | 2 (3) | 99.0% |" in text
    assert "| without labels | 10,000 | 7 | 0.50 | 0.20 | 30 batches |" in text
    assert "`selfheal experiment gauntlet --seeds 2 --first-seed 1 --quiet-batches-to-run 10000 --out DIR`" in text


def test_the_same_figures_give_the_same_pictures() -> None:
    few = {name: SCENARIOS[name] for name in ("S1", "S12")}
    first, second = ([p.png for p in pictures.drawn(few)] for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="without a scenario"):
        pictures.drawn({})


def test_a_folder_without_figures_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"selfheal experiment gauntlet --out"):
        report.read(tmp_path)
    (tmp_path / "gauntlet.json").write_text("{}")
    with pytest.raises(OperatorError, match="first_seed"):
        report.read(tmp_path)


def test_the_page_about_healing_has_a_place_for_its_tables() -> None:
    page = PAGE.read_text("utf-8")
    made = report.filled(page, report.Gauntlet(first_seed=1, seeds=2, scenarios=SCENARIOS))
    assert "| S3 a shift on and off | .500 |" in made
    assert report.filled(made, report.Gauntlet(first_seed=1, seeds=2, scenarios=SCENARIOS)) == made
    with pytest.raises(OperatorError, match="no place for the tables"):
        report.filled("# nothing\n", report.Gauntlet(first_seed=1, seeds=2, scenarios=SCENARIOS))
