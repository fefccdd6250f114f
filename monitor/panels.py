"""What each picture shows, drawn onto axes that the caller made; every function returns the sentence for its title.

Colours are Okabe and Ito's, told apart by colour-blind readers too; lines carry their names at their right end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from shared.bundle import Scores
from shared.records import Event, Metrics

SERVED, SHADOW, POST_HEAL, BASELINE = "#0072B2", "#D55E00", "#009E73", "#595959"
ROLLBACK, DRIFT, PALE = "#AA4499", "#E69F00", "#E6E6E6"
STATE_COLOURS = {"HEALTHY": "#009E73", "DRIFTING": "#E69F00", "HEALING": "#56B4E9", "ROLLED_BACK": "#AA4499"}

Points = tuple[list[int], list[float]]


def column(rows: Sequence[Metrics], name: str) -> Points:
    """Batch numbers and values of one column, where it has a value."""
    found = [(row.batch_idx, getattr(row, name)) for row in rows if getattr(row, name) is not None]
    return [k for k, _ in found], [v for _, v in found]


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], gap: float) -> None:
    """Names of lines (y of the end, text, colour) at the right edge, at least `gap` apart in units of y."""
    ends = sorted(ends)
    placed = [y for y, _, _ in ends]
    for _ in range(len(ends)):  # neighbours that are too close move apart by the same amount; few lines, few rounds
        for i in range(len(ends) - 1):
            short = gap - (placed[i + 1] - placed[i])
            if short > 0:
                placed[i] -= short / 2
                placed[i + 1] += short / 2
    edge = axes.get_yaxis_transform()
    for y, (_, text, colour) in zip(placed, ends, strict=True):
        axes.text(1.01, y, text, transform=edge, color=colour, va="center")


def batches_axis(axes: Axes, rows: Sequence[Metrics]) -> None:
    """Batch numbers along x."""
    axes.set_xlim(rows[0].batch_idx - 0.7, rows[-1].batch_idx + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    axes.set_xlabel("batch")


def lines(axes: Axes, rows: Sequence[Metrics], names: Mapping[str, tuple[str, str]], baseline: str) -> None:
    """Share columns over batches. names: column to (text at its end, colour). baseline: a column, as a dashed line."""
    ends = []
    for name, (text, colour) in names.items():
        x, y = column(rows, name)
        if not y:
            continue
        wide = colour == SERVED
        width, size = (2.4, 4.5) if wide else (1.4, 3)
        axes.plot(x, y, color=colour, linewidth=width, marker="o", markersize=size, zorder=3 + wide)
        ends.append((y[-1], text, colour))
    x, y = column(rows, baseline)
    if y:
        axes.axhline(y[-1], color=BASELINE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
        ends.append((y[-1], "before the drift", BASELINE))
    axes.set_ylim(0, 1.02)
    label_ends(axes, ends, 0.065)
    batches_axis(axes, rows)


def accuracy(axes: Axes, rows: Sequence[Metrics], all_negative: float | None = None) -> str:
    """Accuracy over batches: as served, after the heal on its own rows, frozen shadow, clean baseline."""
    names = {
        "accuracy_shadow": ("frozen shadow", SHADOW),
        "accuracy_post_heal": ("refitted to batch", POST_HEAL),
        "accuracy_healed": ("as served", SERVED),
    }
    lines(axes, rows, names, "accuracy_baseline")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if all_negative is not None:
        axes.axhline(all_negative, color=BASELINE, linewidth=1, linestyle=":")
        axes.annotate(
            "flag nobody", (rows[0].batch_idx - 0.6, all_negative), xytext=(0, -3), textcoords="offset points",
            color=BASELINE, va="top", fontsize="small",
        )  # fmt: skip
    axes.set_ylabel("accuracy, share of the batch")
    lift = column(rows, "acc_lift")[1]
    better = sum(v > 0 for v in lift)
    return f"Served accuracy beats the frozen network in {better} of {len(lift)} batches"


def lift_bars(axes: Axes, rows: Sequence[Metrics]) -> str:
    """Accuracy over the shadow: wide bars as published (refitted, on the rows it was fitted to), points as served."""
    x, refitted = column(rows, "acc_lift_post_heal")
    colours = [POST_HEAL if v > 0 else SHADOW for v in refitted]
    axes.bar(x, [v * 100 for v in refitted], color=colours, width=0.72, alpha=0.85, zorder=2)
    x, served = column(rows, "acc_lift")
    axes.plot(x, [v * 100 for v in served], linestyle="", marker="D", markersize=5, color=SERVED, zorder=4)
    axes.axhline(0, color="black", linewidth=0.9)
    axes.set_ylabel("accuracy lift over the shadow, points")
    axes.legend(
        handles=[
            Patch(color=POST_HEAL, label="refitted to the batch (as published)"),
            Line2D([], [], linestyle="", marker="D", color=SERVED, label="as served, before its labels were known"),
        ],
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False,
    )  # fmt: skip
    batches_axis(axes, rows)
    mean = 100 * sum(refitted) / max(len(refitted), 1)
    mean_served = 100 * sum(served) / max(len(served), 1)
    return f"Mean lift {mean:+.1f} points on the rows just fitted, {mean_served:+.1f} as served"


def fidi(axes: Axes, rows: Sequence[Metrics], threshold: float, feature: str) -> str:
    """FIDI's z over batches, its threshold and the span in which it says drift."""
    x, z = column(rows, "z_score")
    drifting = [k for k, value in zip(x, z, strict=True) if value > threshold]
    for k in drifting:
        axes.axvspan(k - 0.5, k + 0.5, color=DRIFT, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(x, z, color=SERVED, linewidth=2.2, marker="o", markersize=4.5, zorder=3)
    axes.axhline(threshold, color=SHADOW, linewidth=1.3, linestyle=(0, (5, 3)), zorder=2)
    axes.set_ylim(0, max([*z, threshold]) * 1.18)
    ends = [(threshold, f"threshold {threshold:g}", SHADOW)]
    if z:
        ends.append((z[-1], f"z of {feature}", SERVED))
    label_ends(axes, ends, axes.get_ylim()[1] * 0.07)
    axes.set_ylabel(f"FIDI of {feature}, training deviations")
    batches_axis(axes, rows)
    if not drifting:
        return f"FIDI stays under its threshold: no drift of {feature} is seen"
    axes.annotate(
        "drifting", (drifting[0] - 0.4, axes.get_ylim()[1]), xytext=(2, -4), textcoords="offset points", va="top",
        color="#8a5f00",
    )  # fmt: skip
    return f"FIDI says that {feature} drifts from batch {drifting[0]} on" + (
        "" if len(drifting) == len([k for k in x if k >= drifting[0]]) else ", with gaps"
    )


def states(axes: Axes, rows: Sequence[Metrics]) -> str:
    """One column a batch: the monitor's state, what it did, and the adapter it left active."""
    for row in rows:
        k = row.batch_idx
        axes.barh(2, 0.94, left=k - 0.47, height=0.8, color=STATE_COLOURS[row.state])
        done = ROLLBACK if row.rolled_back else (SERVED if row.action.startswith("heal") else PALE)
        axes.barh(1, 0.94, left=k - 0.47, height=0.8, color=done)
        axes.text(k, 0, row.next_version, ha="center", va="center", rotation=90, fontsize="small")
    axes.set_yticks([2, 1, 0], ["state", "action", "adapter\nactive after"])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, 2.6)
    seen = [s for s in STATE_COLOURS if any(row.state == s for row in rows)]
    handles = [Patch(color=STATE_COLOURS[s], label=s) for s in seen]
    handles.append(Patch(color=SERVED, label="healed"))
    if any(row.rolled_back for row in rows):
        handles.append(Patch(color=ROLLBACK, label="healed, rolled back"))
    if any(row.action == "none" for row in rows):
        handles.append(Patch(color=PALE, label="nothing"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=len(handles), frameon=False)
    axes.grid(visible=False)
    batches_axis(axes, rows)
    heals, rollbacks = sum(r.action.startswith("heal") for r in rows), sum(r.rolled_back for r in rows)
    return f"{heals} heals and {rollbacks} rollback{'s' * (rollbacks != 1)} in {len(rows)} batches"


def f1(axes: Axes, rows: Sequence[Metrics], events: Sequence[Event]) -> str:
    """F1 over batches; a rollback is a vertical line that names the adapter taken back and the one restored."""
    names = {
        "f1_shadow": ("frozen shadow", SHADOW),
        "f1_post_heal": ("refitted to batch", POST_HEAL),
        "f1_healed": ("as served", SERVED),
    }
    lines(axes, rows, names, "f1_baseline")
    at = {row.batch_id: row.batch_idx for row in rows}
    back = [e for e in events if e.kind == "rolled-back" and e.facts.get("batch_id") in at]
    for e in back:
        k = at[e.facts["batch_id"]]
        axes.axvline(k, color=ROLLBACK, linewidth=1.3, zorder=1)
        axes.annotate(
            f"{e.facts['from_version']} → {e.facts['to_version']}", (k, 1.0), xytext=(-3, -2),
            textcoords="offset points", rotation=90, ha="right", va="top", color=ROLLBACK, fontsize="small",
        )  # fmt: skip
    axes.set_ylabel("F1")
    lift = column(rows, "f1_lift")[1]
    better = sum(v > 0 for v in lift)
    rollbacks = f"{len(back)} rollback{'s' * (len(back) != 1)}" if back else "no rollback"
    return f"Served F1 beats the frozen network in {better} of {len(lift)} batches; {rollbacks}"


def registry(axes: Axes, events: Sequence[Event]) -> str:
    """Every entry of the registry by version and F1 on the rows of its heal; the best post-heal one starred."""
    heals = [e.facts for e in events if e.kind == "heal-finished"]
    pre = [(_number(f["pre_version"]), f["f1_before"]) for f in heals if f.get("f1_before") is not None]
    post = [(_number(f["post_version"]), f["f1_after"]) for f in heals if f.get("f1_after") is not None]
    restored = {_number(e.facts["to_version"]) for e in events if e.kind == "rolled-back"}
    axes.scatter(
        *_xy(pre), s=30, facecolors="none", edgecolors=BASELINE, linewidths=1.1, zorder=2, label="before a heal"
    )
    axes.scatter(*_xy(post), s=42, color=POST_HEAL, zorder=3, label="after a heal (can be restored)")
    back = [p for p in post if p[0] in restored]
    if back:
        axes.scatter(
            *_xy(back), s=170, facecolors="none", edgecolors=ROLLBACK, linewidths=1.8, zorder=3, label="was restored"
        )  # fmt: skip
    axes.set_xlabel("version in the registry")
    axes.set_ylabel("F1 on the rows of its heal")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    title = "No heal, so no entry beside the bundle's own"
    if post:
        best = max(post, key=lambda p: (p[1], p[0]))
        axes.scatter([best[0]], [best[1]], s=330, marker="*", color=DRIFT, edgecolors="black", linewidths=0.8, zorder=5)
        text = f"v{best[0]}, F1 {best[1]:.3f}"
        axes.annotate(
            text, best, xytext=(0, 13), textcoords="offset points", ha="center", weight="bold", zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
        )  # fmt: skip
        title = f"Of {len(pre) + len(post)} entries the best after a heal is v{best[0]} (F1 {best[1]:.3f})"
    axes.set_xlim(0, max([k for k, _ in post], default=1) + 3)
    axes.set_ylim(-0.015, max([v for _, v in [*pre, *post]], default=1) * 1.15)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)
    return title


def _number(version: str) -> int:
    return int(version.removeprefix("v"))


def _xy(points: Sequence[tuple[int, float]]) -> Points:
    return [k for k, _ in points], [v for _, v in points]


def stages(axes: Axes, scores: Mapping[str, Scores]) -> str:
    """Grouped bars: accuracy, precision, recall, F1 of each stage, in the order given; numbers above the bars."""
    colours = [BASELINE, SHADOW, DRIFT, SERVED, POST_HEAL]
    kinds = ("accuracy", "precision", "recall", "f1")
    width = 0.82 / max(len(scores), 1)
    for i, (stage, found) in enumerate(scores.items()):
        x = [j - 0.41 + width * (i + 0.5) for j in range(len(kinds))]
        y = [getattr(found, kind) for kind in kinds]
        axes.bar(x, y, width=width * 0.94, color=colours[i % len(colours)], label=stage, zorder=2)
        for left, value in zip(x, y, strict=True):
            axes.annotate(
                f"{value:.3f}".removeprefix("0"), (left, value), xytext=(0, 2), textcoords="offset points", ha="center",
                fontsize="small",
            )  # fmt: skip
    axes.set_xticks(range(len(kinds)), ["accuracy", "precision", "recall", "F1"])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if scores:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=len(scores), frameon=False)
    if {"drift", "healed"} <= scores.keys():
        before, after = scores["drift"], scores["healed"]
        return (
            f"Healing moves accuracy {before.accuracy:.1%} → {after.accuracy:.1%}, F1 {before.f1:.3f} → {after.f1:.3f}"
        )
    return "Scores of each stage"
