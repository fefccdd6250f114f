"""What the demo showed, in numbers that do not flatter: as served, beside doing nothing, beside what is possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from selfheal.acts import FLAG, Truth
from selfheal.document import Block, Grid, Heading, Picture, Points, Words
from selfheal.story import Chapter, Outcome, Story
from selfheal.story_words import evidence
from selfheal.tail_lines import clean, score
from shared.bundle import Costs
from shared.records import FIRST_VERSION, Prediction
from shared.scores import at_budget, expected_cost, scores

ALERTS_PER_1000 = 100.0  # a team that looks at one transaction in ten; a bundle with a budget of its own has another
COLUMNS = ("accuracy", "precision", "recall", "F1", "cost", "precision at k", "recall at budget")
SHORT = {"precision at k": "prec@k", "recall at budget": "recall@k"}  # where a terminal has 80 columns
MEANING = {
    Outcome.HEALED: "healed, without labels",
    Outcome.REFUSED: "refused: not healable without labels",
    Outcome.TAKEN_BACK: "a repair taken back on the evidence of labels",
    Outcome.SEEN: "noticed, without a verdict",
    Outcome.UNSEEN: "not noticed",
    Outcome.AHEAD: "not reached",
}


class Line(NamedTuple):
    """A row of the table; None: not defined."""

    name: str
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    cost: float | None
    at_k: float | None
    at_budget: float | None


def table(
    story: Story, predictions: Mapping[int, Prediction], first: int, last: int, alerts_per_1000: float = ALERTS_PER_1000
) -> list[Line]:
    """Means over the batches first..last, by number. predictions: by batch number; batches without one are left out."""
    found = [(predictions[k], story.truth[k]) for k in range(first, last + 1) if k in predictions]
    if not found:
        return []
    costs = story.costs

    def line(name: str, each: Sequence[tuple[npt.ArrayLike, Truth]]) -> Line:
        return Line(name, *map(fmean, zip(*(_judged(p, t, costs, alerts_per_1000) for p, t in each), strict=True)))

    nobody = line("flagging nobody", [(np.zeros(len(t.labels)), t) for _, t in found])
    return [
        line("as served", [(p.probability, t) for p, t in found]),
        line("frozen", [(p.shadow_probability, t) for p, t in found]),
        line("best possible", [(t.oracle, t) for _, t in found]),
        nobody._replace(at_k=None, at_budget=None),
    ]


def _judged(p: npt.ArrayLike, truth: Truth, costs: Costs, alerts_per_1000: float) -> tuple[float, ...]:
    found = scores(p, truth.labels, FLAG)
    at_k = at_budget(p, truth.labels, alerts_per_1000)
    return found.accuracy, found.precision, found.recall, found.f1, expected_cost(p, truth.labels, costs), *at_k


def titled(number: int, chapter: Chapter) -> str:
    act = chapter.act
    return f"{number}. {act.title.capitalize()}, batches {act.first} to {act.last}: {MEANING[chapter.outcome]}"


def told(story: Story, chapter: Chapter) -> list[str]:
    """What happened, in order."""
    lines = [chapter.act.told]
    for what, words in evidence(story, chapter):
        lines.append(f"**{what or 'and its cost'}**: {words}")
    return lines


def false_alarms(story: Story) -> str:
    """Before the first drift."""
    first = story.plan.acts[0].first
    count = sum(e.kind == "alarm" and (story.batch_of(e) or first) < first for e in story.events)
    return "No false alarm." if not count else f"{count} false alarm{'s' if count > 1 else ''}."


def caution(story: Story) -> str:
    """What the accuracy alone would hide, and one seed."""
    costs = story.costs
    return (
        f"Seed {story.plan.seed}, not chosen; one seed is one story: `selfheal experiment gauntlet` plays every kind "
        "of drift on many. The best any model can do: Bayes' rule, told the drift and the law behind the stream. "
        f"Cost is per transaction: a false alarm {costs.false_alarm:g}, a missed fraud {costs.missed_fraud:g}, flagged "
        f"where that is the cheaper answer; the other figures are at p > {FLAG:g}. Precision at k and recall at "
        f"budget: with {ALERTS_PER_1000:g} alerts per 1,000 transactions, the riskiest of each batch. Where fraud "
        "cannot be told apart any more, flagging nobody has a fine accuracy: look at the cost."
    )


def as_table(lines: Sequence[Line]) -> Table:
    """For the terminal."""
    shown = Table(box=None, header_style="dim", pad_edge=False)
    shown.add_column("means over batches", no_wrap=True, min_width=19)
    for column in COLUMNS:
        shown.add_column(SHORT.get(column, column), justify="right", no_wrap=True)
    for line in lines:
        style = "bold" if line.name == "as served" else "dim" if line.name == "flagging nobody" else ""
        shown.add_row(line.name, *(score(v) for v in line[1:]), style=style)
    return shown


def as_lines(said: Sequence[tuple[str, str]]) -> Table:
    """What was said of a chapter, for the terminal: long words are wrapped beside what they are about."""
    shown = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    shown.add_column(style="dim", justify="right", no_wrap=True, min_width=18)
    shown.add_column()
    for what, words in said:
        shown.add_row(clean(what), Text(clean(words)))
    return shown


def document(
    story: Story, predictions: Mapping[int, Prediction], picture: Picture, files: Sequence[str]
) -> list[Block]:
    """report.md and report.html."""
    clean = story.plan.acts[0].first - 1
    blocks: list[Block] = [
        Heading(1, "A fraud model drifts three times"),
        Words(
            f"{story.plan.batches} batches of {story.plan.rows} transactions over Apache Kafka, four processes, policy "
            f"guarded. {'; '.join(f'{c.act.title}: **{c.outcome}**' for c in story.chapters)}. {false_alarms(story)}"
        ),
        picture,
        Heading(2, f"Before: {clean} clean batches"),
        _grid(table(story, predictions, 1, clean)),
    ]
    for number, chapter in enumerate(story.chapters, start=1):
        blocks += [
            Heading(2, titled(number, chapter)), Points(told(story, chapter)),
            _grid(table(story, predictions, chapter.act.first, chapter.act.last)),
        ]  # fmt: skip
    served = [r for r in story.scored() if r.adapter_version != FIRST_VERSION]
    return [
        *blocks, Heading(2, "How to read this"), Words(caution(story)),
        Words(f"{len(served)} batches were scored by a repair. {story.active} was served at the end.", note=True),
        Words("Files: " + ", ".join(f"`{name}`" for name in files) + ".", note=True),
    ]  # fmt: skip


def _grid(lines: Sequence[Line]) -> Grid:
    rows = [[line.name, *(score(v) for v in line[1:])] for line in lines]
    return Grid(["means over batches", *COLUMNS], rows, frozenset({0}))
