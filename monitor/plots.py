"""The eight pictures of a run, as PNG files; the same run gives the same bytes. Matplotlib's objects, no pyplot."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from monitor import panels
from monitor.export import Run
from shared.bundle import Scores, write_whole

NAMES = ("accuracy", "lift", "fidi", "states", "f1", "registry", "stages", "dashboard")
DPI = 120
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 11.5, "axes.titlesize": 13.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 12, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#E3E3E3", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "legend.handlelength": 1.4, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip
Panel = Callable[[Axes], str]


def draw(
    run: Run, stages: Mapping[str, Scores], folder: Path, *, feature: str, all_negative: float | None = None
) -> list[Path]:
    """Write the eight pictures into the folder (accuracy.png, ..) and return their paths.

    stages: bars of the stages picture, in order. feature: the one that FIDI watches. all_negative: the accuracy of
    flagging nobody, drawn as a line where known. Raises ValueError when the run has no batch.
    """
    if not run.rows:
        raise ValueError("a run without a batch has nothing to draw")
    rows, events, threshold = run.rows, run.events, run.thresholds.get("fidi_threshold", 1.0)
    single: dict[str, Panel] = {
        "accuracy": lambda axes: panels.accuracy(axes, rows, all_negative),
        "lift": lambda axes: panels.lift_bars(axes, rows),
        "fidi": lambda axes: panels.fidi(axes, rows, threshold, feature),
        "states": lambda axes: panels.states(axes, rows),
        "f1": lambda axes: panels.f1(axes, rows, events),
        "registry": lambda axes: panels.registry(axes, events),
        "stages": lambda axes: panels.stages(axes, stages),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context(STYLE):
        for name, panel in single.items():
            figure = Figure(figsize=(10, 3.9 if name == "states" else 5.4), layout="constrained")
            axes = figure.add_subplot()
            axes.set_title(panel(axes))
            paths.append(_save(figure, folder / f"{name}.png"))
        paths.append(_save(_dashboard(single), folder / "dashboard.png"))
    return paths


def _dashboard(single: Mapping[str, Panel]) -> Figure:
    with rc_context({"font.size": 10.5, "axes.titlesize": 11.5}):
        figure = Figure(figsize=(15, 10), layout=ConstrainedLayoutEngine(hspace=0.07, wspace=0.04))
        for axes, name in zip(figure.subplots(2, 2).flat, ("accuracy", "lift", "fidi", "f1"), strict=True):
            axes.set_title(single[name](axes))
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def _save(figure: Figure, path: Path) -> Path:
    write_whole(path, png(figure))
    return path
