"""The gauntlet in pictures: what was gained, when, and what was said about it. Figures in, PNG bytes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from monitor.panels import BASELINE, SERVED, SHADOW
from monitor.plots import STYLE, png
from producer.scenarios import CLEAN
from selfheal.document import Picture
from selfheal.gauntlet.summary import VERDICTS, Figures
from selfheal.gauntlet.titles import titled
from selfheal.gauntlet.world import variant

PUBLISHED, NOBODY, INK = "#CC79A7", "#999999", "#333333"
# In the order of the legend: name, colour, marker, size.
MARKS = {
    "frozen": ("frozen", SHADOW, "o", 8.0),
    "published": ("published method, no labels", PUBLISHED, "X", 7.5),
    "all_negative": ("flagging nobody", NOBODY, "|", 11.0),
    "oracle": ("best possible", BASELINE, "D", 6.5),
    "healed": ("healed", SERVED, "o", 9.5),
}
COLUMNS: tuple[str, ...] = (
    "none", "harmless", "shift", "scale", "units", "fraud-rate", "both", "columns-swapped", "outage", "unexplained",
)  # fmt: skip


def drawn(scenarios: Mapping[str, Figures]) -> list[Picture]:
    """All of them; the same figures give the same bytes. Raises ValueError where there is no scenario."""
    if not scenarios:
        raise ValueError("a gauntlet without a scenario has nothing to draw")
    with rc_context(STYLE):
        return [gains(scenarios, "accuracy"), curves(scenarios), verdicts(scenarios), gains(scenarios, "cost")]


def gains(scenarios: Mapping[str, Figures], what: Literal["accuracy", "cost"]) -> Picture:
    """A line per scenario, from the frozen network to the healed one, beside every other way."""
    names = list(scenarios)
    figure = Figure(figsize=(10, 1.9 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        ways = {way: float(getattr(found, what)) for way, found in scenarios[name].ways.items()}
        axes.plot([ways["frozen"], ways["healed"]], [y, y], color=SERVED, linewidth=5, alpha=0.25, zorder=1)
        for way, (_, colour, marker, size) in MARKS.items():
            axes.plot(
                [ways[way]], [y], marker, color=colour, markersize=size, markeredgewidth=2 if marker == "|" else 0
            )
    axes.set_yticks(range(len(names)), [titled(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if what == "accuracy":
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axes.set_xlim(left=0)
    _legend(figure, list(MARKS))
    title = {
        "accuracy": "Accuracy over the last 20 batches",
        "cost": "Cost per transaction over the last 20 batches; lower is better",
    }[what]
    figure.suptitle(title, fontsize=13.5, fontweight="bold", x=0.01, ha="left")
    seeds = next(iter(scenarios.values())).seeds
    return Picture(
        f"{what}.png", png(figure), f"{title}, mean of {seeds} seeds, for each scenario and way of answering"
    )


def curves(scenarios: Mapping[str, Figures]) -> Picture:
    """Accuracy batch by batch, a small panel per scenario."""
    across = 4
    down = -(-len(scenarios) // across)
    figure = Figure(figsize=(12, 0.9 + 1.95 * down), layout="constrained")
    cells = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes, (name, found) in zip(cells, scenarios.items(), strict=False):
        _curve(axes, name, found)
    for axes in cells[len(scenarios) :]:
        axes.set_axis_off()
    _legend(figure, ["frozen", "published", "oracle", "healed"], lines=True)
    title = f"Accuracy batch by batch; drift begins after batch {CLEAN}"
    figure.suptitle(title, fontsize=13.5, fontweight="bold", x=0.01, ha="left")
    return Picture("curves.png", png(figure), f"{title}, a panel for each scenario")


def _curve(axes: Axes, name: str, found: Figures) -> None:
    for way in ("oracle", "published", "frozen", "healed"):
        if (values := found.curve.get(way)) is None:
            continue
        wide = way == "healed"
        style = (0, (4, 2)) if way == "oracle" else "solid"
        batches = range(1, len(values) + 1)
        axes.plot(batches, values, color=MARKS[way][1], linewidth=2.2 if wide else 1.2, linestyle=style)
    axes.axvspan(0.5, CLEAN + 0.5, color="#009E73", alpha=0.08, linewidth=0)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(titled(name), fontsize=9, pad=4)
    axes.tick_params(labelsize=8)


def verdicts(scenarios: Mapping[str, Figures]) -> Picture:
    """The confusion matrix: share of each scenario's drifted batches that a verdict was in force; the right ones
    framed."""
    names = list(scenarios)
    shares = np.array([_shares(scenarios[name]) for name in names])
    figure = Figure(figsize=(10, 1.7 + 0.36 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        if share >= 0.005:
            axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=9, color="white" if share > 0.6 else INK)
    for y, name in enumerate(names):
        for verdict in _truth(name):
            x = COLUMNS.index(verdict)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=SHADOW, linewidth=2))
    axes.set_xticks(range(len(COLUMNS)), COLUMNS, rotation=30, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), [titled(name) for name in names])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    title = "What was said, share of drifted batches; the truth is framed"
    figure.suptitle(title, fontsize=13.5, fontweight="bold", x=0.01, ha="left")
    return Picture("verdicts.png", png(figure), title)


def _truth(name: str) -> Sequence[str]:
    """Where the drift is off now and then, none is right as well."""
    found = variant(name)
    comes_and_goes = any(step.profile.every for step in found.scene.steps)
    return [*VERDICTS[found.plain], *(["none"] if comes_and_goes else [])]


def _shares(found: Figures) -> list[float]:
    total = sum(found.verdicts.values()) or 1
    return [found.verdicts.get(verdict, 0) / total for verdict in COLUMNS]


def _legend(figure: Figure, ways: Sequence[str], *, lines: bool = False) -> None:
    """lines: strokes as in the curves, else marks."""
    marks = [MARKS[way] for way in ways]
    handles = [
        Line2D([], [], color=colour, linestyle=(0, (4, 2)) if name == MARKS["oracle"][0] else "solid", label=name,
               linewidth=2.6 if name == MARKS["healed"][0] else 1.6)
        for name, colour, _, _ in marks
    ] if lines else [
        Line2D([], [], color=colour, marker=marker, markersize=size * 0.9, linestyle="none", label=name,
               markeredgewidth=2 if marker == "|" else 0)
        for name, colour, marker, size in marks
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
