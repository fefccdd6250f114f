"""The demo's picture: accuracy and cost, as served, frozen and at best, with the three drifts behind them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitor.panels import BASELINE, SERVED, SHADOW, label_ends
from monitor.plots import STYLE, png
from selfheal.document import Picture
from selfheal.story import Outcome, Story

BANDS = {Outcome.HEALED: "#009E73", Outcome.REFUSED: "#D55E00", Outcome.TAKEN_BACK: "#AA4499"}
PLAIN = "#E69F00"


def picture(story: Story) -> Picture:
    """Of every batch whose labels are known; raises ValueError where there is none."""
    rows = story.scored()
    if not rows:
        raise ValueError("a run without a labelled batch has nothing to draw")
    batches = [r.batch_idx for r in rows]

    def values(name: str) -> list[float]:
        return [getattr(r, name) for r in rows]

    best = [story.truth[k].best(story.costs) for k in batches]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 7.6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        _lines(top, batches, values("accuracy_healed"), values("accuracy_shadow"), [b[0] for b in best])
        top.set_title("Accuracy: the repair, the frozen network, the best any model can do")
        top.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _lines(bottom, batches, values("cost_healed"), values("cost_shadow"), [b[1] for b in best])
        bottom.set_title("Cost per transaction (a false alarm 1, a missed fraud 5); lower is better")
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("batch")
        for axes in (top, bottom):
            axes.set_xlim(batches[0] - 0.7, batches[-1] + 0.7)
            _bands(axes, story, named=axes is top)
        low, high = top.get_ylim()
        top.set_ylim(low - 0.2 * (high - low), high)  # room for the names of the drifts
        data = png(figure)
    said = ", ".join(f"{c.act.title}: {c.outcome}" for c in story.chapters)
    return Picture("story.png", data, f"Accuracy and cost per batch over three drifts ({said})")


def _lines(
    axes: Axes, x: Sequence[int], served: Sequence[float], frozen: Sequence[float], best: Sequence[float]
) -> None:
    axes.plot(x, best, color=BASELINE, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.plot(x, frozen, color=SHADOW, linewidth=1.6)
    axes.plot(x, served, color=SERVED, linewidth=2.4)
    low, high = axes.get_ylim()
    ends = [(served[-1], "as served", SERVED), (frozen[-1], "frozen", SHADOW), (best[-1], "best possible", BASELINE)]
    label_ends(axes, ends, gap=(high - low) * 0.085)


def _bands(axes: Axes, story: Story, *, named: bool) -> None:
    for chapter in story.chapters:
        act, colour = chapter.act, BANDS.get(chapter.outcome, PLAIN)
        axes.axvspan(act.first - 0.5, act.last + 0.5, color=colour, alpha=0.10, linewidth=0)
        if named:
            where = axes.get_xaxis_transform()
            axes.text(
                (act.first + act.last) / 2, 0.03, f"{act.title}\n{chapter.outcome}", transform=where, color=colour,
                ha="center", va="bottom", fontweight="bold",
            )  # fmt: skip
