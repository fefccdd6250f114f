"""What the demo showed, in numbers that do not flatter: as served, beside doing nothing, beside what is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table

from selfheal.experiment.ceiling import Ceiling
from selfheal.story import Story, mean
from selfheal.tail_lines import score
from shared.records import Metrics

COLUMNS = ("accuracy", "precision", "recall", "F1", "cost")


class Line(NamedTuple):
    """A row of the table; None: the figure is not defined or not at hand."""

    name: str
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    cost: float | None


def table(story: Story, possible: Ceiling) -> list[Line]:
    """Means over batches; possible: what this drift allows any model."""
    clean, drifted = story.scored(last=story.plan.drift_from - 1), story.scored(story.plan.drift_from)
    healed = story.served_by_adapter()
    since = f"batches {healed[0].batch_idx} to {healed[-1].batch_idx}" if healed else "no batch"
    rate = 1 - possible.accuracy_all_negative
    return [
        _line(f"clean, batches 1 to {story.plan.drift_from - 1}", clean, "healed"),
        _line(f"drift, doing nothing (frozen), batches {story.plan.drift_from} on", drifted, "shadow"),
        _line("drift, as served, the same batches", drifted, "healed"),
        _line(f"served by an adapter, {since}", healed, "healed"),
        _line("doing nothing, the same batches", healed, "shadow"),
        Line(
            "the best any model can do on this drift, each figure by itself",
            possible.accuracy, None, None, possible.f1, possible.cost,
        ),
        Line(
            f"flagging nobody ({rate:.0%} are fraud)",
            possible.accuracy_all_negative, 0.0, 0.0, 0.0, possible.cost_all_negative,
        ),
    ]  # fmt: skip


def told(story: Story) -> list[str]:
    """What happened, in order."""
    lines = [f"Batches 1 to {story.plan.drift_from - 1} were clean; from batch {story.plan.drift_from} on the V14 of "
             "normal transactions lay 2.2 lower."]  # fmt: skip
    early = [e for e in story.events if e.kind == "heal-requested" and _batch(e.facts) < story.plan.drift_from]
    if early:
        lines.append(f"False alarms: {len(early)} heals were asked for before the drift.")
    sign = story.first_sign()
    if sign is None:
        lines.append("The monitor noticed nothing.")
    else:
        late = _batch(sign.facts) - story.plan.drift_from + 1
        lines.append(f"Noticed on drifted batch {late}: {sign.message}.")
    drift = next((e for e in story.events if e.kind == "drift-detected"), None)
    if drift is not None and drift is not sign:
        lines.append(f"FIDI, which averages ten batches, followed at batch {_batch(drift.facts)}: {drift.message}.")
    rows = story.scored()
    heals, back = sum(r.action.startswith("heal") for r in rows), [r for r in rows if r.rolled_back]
    lines.append(f"{heals} heals, {len(back)} taken back; {story.active} was served at the end.")
    healed = story.served_by_adapter()
    if healed:
        better = sum((r.acc_lift or 0) > 0 for r in healed)
        served, frozen = mean(healed, "accuracy_healed") or 0, mean(healed, "accuracy_shadow") or 0
        lines.append(
            f"While an adapter was served ({len(healed)} batches), accuracy was {served:.3f} instead of {frozen:.3f}; "
            f"better than the frozen network in {better} of {len(healed)} batches."
        )
        lines.append(_price(healed))
    return lines


def caution(possible: Ceiling) -> str:
    """What the accuracy alone would hide, and one seed."""
    return (
        "One seed is one story: `selfheal experiment reference --seeds 20` tells how it goes on the whole. "
        f"Accuracy alone flatters: on this drift fraud and normal look almost the same. No model can have an F1 over "
        f"{possible.f1:.3f} here, and flagging nobody is right {possible.accuracy_all_negative:.0%} of the time. Cost "
        f"is per transaction: a false alarm 1, a missed fraud 5, flagged above p = {possible.cost_threshold:.3f}."
    )


def as_table(lines: Sequence[Line]) -> Table:
    """For the terminal."""
    shown = Table(box=None, header_style="dim", pad_edge=False)
    shown.add_column("means over batches of 100")
    for column in COLUMNS:
        shown.add_column(column, justify="right")
    for line in lines:
        shown.add_row(line.name, *(score(v) for v in line[1:]), style="bold" if "as served" in line.name else "")
    return shown


def as_markdown(story: Story, possible: Ceiling, files: Sequence[str]) -> str:
    """report.md."""
    head = "| means over batches of 100 | " + " | ".join(COLUMNS) + " |"
    rows = [f"| {line.name} | " + " | ".join(score(v) for v in line[1:]) + " |" for line in table(story, possible)]
    return "\n".join([
        "# A fraud model drifts, and heals", "", *(f"- {line}" for line in told(story)), "",
        head, "|---|" + "---:|" * len(COLUMNS), *rows, "", caution(possible), "",
        "Files: " + ", ".join(f"`{name}`" for name in files) + ".", "",
    ])  # fmt: skip


def _line(name: str, rows: Sequence[Metrics], whose: str) -> Line:
    return Line(name, *(mean(rows, f"{c}_{whose}") for c in ("accuracy", "precision", "recall", "f1", "cost")))


def _price(healed: Sequence[Metrics]) -> str:
    """What the lift of accuracy cost or saved."""
    now, was = mean(healed, "cost_healed") or 0, mean(healed, "cost_shadow") or 0
    caught, before = mean(healed, "recall_healed") or 0, mean(healed, "recall_shadow") or 0
    verdict = "cheaper" if now < was else "dearer"
    return (
        f"By cost it was {verdict} than doing nothing: {now:.3f} instead of {was:.3f} per transaction; it found "
        f"{caught:.0%} of the fraud instead of {before:.0%}."
    )


def _batch(facts: dict[str, object]) -> int:
    batch = facts.get("batch_idx")
    return batch if isinstance(batch, int) else 0
