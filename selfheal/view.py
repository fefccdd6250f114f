"""The story in a terminal: three drifts, what is known of this one, a row per batch, the latest events. Pure: returns
what rich prints."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from selfheal.story import Outcome, Story, done
from selfheal.story_words import evidence, explanation
from selfheal.tail_lines import REFUSALS, clean, event_style, score
from shared.records import FIRST_VERSION, Event, Metrics

PANEL_LINES = 6  # the drifts, a gap, two lines of explanation, in their frame; more where lines are short
EVIDENCE_LINES = 7  # alarm, verdict, estimate, two measured, the end, a gap
HEAD_LINES = 1  # the table's
ROWS_MIN, EVENTS_MAX = 3, 4
WIDE = 110
Z_MAX, LIFT_MAX = 2.0, 0.4  # where the bars end; z in thresholds
OUTCOMES = {
    Outcome.AHEAD: ("○", "dim"), Outcome.UNSEEN: ("●", "yellow"), Outcome.SEEN: ("●", "bold yellow"),
    Outcome.REFUSED: ("■", "bold red"), Outcome.HEALED: ("✔", "bold green"), Outcome.TAKEN_BACK: ("↶", "bold magenta"),
}  # fmt: skip


def view(story: Story, *, width: int, height: int, elapsed_s: float) -> Group:
    """The whole picture, no taller than height."""
    panel = PANEL_LINES + (1 if width >= WIDE else 2)
    left = height - panel - EVIDENCE_LINES - HEAD_LINES - 1
    events = max(0, min(EVENTS_MAX, left - ROWS_MIN - 8))
    gap = [Text()] if events else []
    shown = max(ROWS_MIN, left - events - len(gap))
    return Group(
        _head(story, elapsed_s, panel),
        *_evidence(story, width),
        _table(story, width, shown),
        *gap,
        *_latest(story, events),
    )


def _head(story: Story, elapsed_s: float, lines: int) -> Panel:
    newest, now = story.newest, story.chapter
    steps = Text()
    for i, chapter in enumerate(story.chapters):
        mark, style = OUTCOMES[chapter.outcome]
        here = now is not None and now.act is chapter.act
        steps.append("  " if i else "", style="dim")
        steps.append(f"{mark} {chapter.act.title}", style=f"{style} reverse" if here else style)
        steps.append(f": {chapter.outcome}" if chapter.outcome != Outcome.AHEAD else "", style=style)
    steps.no_wrap = True
    batch = 0 if newest is None else newest.batch_idx
    return Panel(
        Group(steps, Text(), Text(explanation(story))),
        title="[bold]three drifts: one is healed, one refused, one repair taken back[/bold]",
        subtitle=f"batch {batch} of {story.plan.batches}, served by {story.active}, {elapsed_s:.0f} s",
        box=box.ROUNDED, padding=(0, 1), height=lines,
    )  # fmt: skip


def _evidence(story: Story, width: int) -> list[Text]:
    """Always as many lines, so that the table below stands still."""
    chapter = story.chapter
    said = [] if chapter is None else evidence(story, chapter)
    lines = []
    for what, words in said[: EVIDENCE_LINES - 1]:
        line = Text.assemble((f" {clean(what):>18}  ", _style(what)), clean(words))
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return [*lines, *[Text()] * (EVIDENCE_LINES - len(lines))]


def _style(what: str) -> str:
    if what.startswith("verdict"):
        return "bold red" if what.removeprefix("verdict ") in REFUSALS else "bold cyan"
    colours = {"alarm": "bold yellow", "taken back": "bold magenta", "drift ended": "green", "learned": "bold green"}
    return colours.get(what, "dim")


def _table(story: Story, width: int, shown: int) -> Table:
    wide = width >= WIDE
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="dim", expand=False)
    table.add_column("batch", justify="right", min_width=5)
    table.add_column("how odd (z)", no_wrap=True)
    table.add_column("best", justify="right", min_width=5)
    table.add_column("frozen", justify="right", min_width=6)
    table.add_column("served", justify="right", min_width=6)
    table.add_column("lift of accuracy" if wide else "lift", no_wrap=True)
    if wide:
        table.add_column("cost", justify="right", min_width=5)
    table.add_column("by", justify="right", min_width=3)
    table.add_column("then", no_wrap=True, min_width=16)
    for row in [story.rows[i] for i in sorted(story.rows)][-shown:]:
        best = score(story.truth[row.batch_idx].best(story.costs)[0]) if row.accuracy_healed is not None else ".."
        cells: list[RenderableType] = [
            Text(str(row.batch_idx), style="bold" if _begins(row, story) else ""),
            z_bar(row.alarm_z, story.threshold, 14 if wide else 6),
            Text(best, style="dim"),
            Text(score(row.accuracy_shadow), style="dim"),
            Text(score(row.accuracy_healed), style="bold"),
            lift_bar(row.acc_lift, 8 if wide else 3),
        ]
        if wide:
            cells.append(Text(score(row.cost_healed)))
        cells += [
            Text(row.adapter_version, style="dim" if row.adapter_version == FIRST_VERSION else "bold"),
            happened(row, story),
        ]
        table.add_row(*cells)
    return table


def _begins(row: Metrics, story: Story) -> bool:
    return any(act.first == row.batch_idx for act in story.plan.acts)


def happened(row: Metrics, story: Story) -> Text:
    """What the batch led to, or what happened out there."""
    if row.rolled_back:
        return Text(f"{row.adapter_version} taken back", style="bold magenta")
    if row.action in ("heal", "refit", "switch", "promote"):
        return Text(f"{'learned' if row.action == 'promote' else 'repair'}: {row.next_version}", style="bold green")
    if row.action == "heal-failed":
        return Text("heal failed", style="bold red")
    for act in story.plan.acts:
        if row.batch_idx == act.first:
            return Text("the drift begins", style="yellow")
        if row.batch_idx == act.last + 1:
            return Text("the drift is over", style="green")
    if row.action == "drift-ended":
        return Text(f"back to {row.next_version}", style="green")
    if row.action == "diagnosed" and row.verdict in REFUSALS:
        return Text("refused", style="red")
    if not row.settled:
        return Text("asking ..", style="cyan")
    return Text("" if done(row) else "..", style="dim")


def z_bar(z: float | None, threshold: float, width: int) -> Text:
    """Full at twice the threshold, which is marked in the middle."""
    if z is None:
        return Text("·" * width + "    -", style="dim")
    filled = round(min(z / threshold, Z_MAX) / Z_MAX * width)
    mark = round(width / Z_MAX)
    over = z > threshold
    text = Text()
    for i in range(width):
        style = ("yellow" if over else "green") if i < filled else "dim"
        text.append("│" if i == mark else ("█" if i < filled else "·"), style="bold" if i == mark else style)
    return text.append(f" {z:4.1f}", style="bold yellow" if over else "")


def lift_bar(lift: float | None, half: int) -> Text:
    """Gain to the right in green, loss to the left in red."""
    if lift is None:
        return Text(" " * half + "│" + " " * half + "    ..", style="dim")
    filled = min(half, max(round(abs(lift) / LIFT_MAX * half), int(abs(lift) > 0.005)))
    left = " " * (half - filled) + "█" * filled if lift < 0 else " " * half
    right = ("█" * filled if lift > 0 else "").ljust(half)
    style = "green" if lift > 0 else "red"
    return Text.assemble(
        (left, style), ("│", "dim"), (right, style), (f" {score(lift, sign=True)}", style if filled else "dim")
    )


def _latest(story: Story, count: int) -> list[Text]:
    lines = [event_line(event) for event in story.told[-count:]] if count else []
    return [*lines, *[Text()] * (count - len(lines))]


def event_line(event: Event) -> Text:
    """Kind and message, in the colour of the kind."""
    text = Text.assemble((f" {clean(event.kind):<18}", event_style(event.kind, event.facts)), clean(event.message))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def batch_line(row: Metrics, story: Story) -> str:
    """One batch about which all is known, for a pipe."""
    note = happened(row, story).plain
    z = "-" if row.alarm_z is None else f"{row.alarm_z:.1f}"
    return (
        f"batch {row.batch_idx:>3}  z {z:>5}  accuracy {score(row.accuracy_healed)} served, "
        f"{score(row.accuracy_shadow)} frozen ({score(row.acc_lift, sign=True)})  cost {score(row.cost_healed)}, "
        f"{score(row.cost_shadow)} frozen  by {row.adapter_version}" + (f"  {note}" if note else "")
    )
