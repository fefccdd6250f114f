"""The story in a terminal: phases, a row per batch with its bars, the latest events. Pure: returns what rich prints."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from selfheal.story import TITLES, Phase, Story
from selfheal.tail_lines import STYLES, clean, score
from shared.records import Event, Metrics

EVENTS = 4
PANEL_LINES, TABLE_LINES = 8, 3  # explanation in its frame; the table's head and the gap before the events
WIDE = 104
Z_MAX, LIFT_MAX = 2.0, 0.4  # where the bars end; z in thresholds


def view(story: Story, *, width: int, height: int, elapsed_s: float) -> Group:
    """The whole picture, no taller than height."""
    shown = max(3, height - PANEL_LINES - TABLE_LINES - EVENTS - 1)
    return Group(_head(story, elapsed_s), _table(story, width, shown), Text(), *_latest(story))


def _head(story: Story, elapsed_s: float) -> Panel:
    newest = story.newest
    done = 0 if newest is None else newest.batch_idx
    steps = Text()
    for phase in Phase:
        style = "bold reverse" if phase == story.phase else ("green" if phase < story.phase else "dim")
        steps.append("" if phase == Phase.CLEAN else "  ─  ", style="dim")
        steps.append(f" {phase + 1} {TITLES[phase]} ", style=style)
    return Panel(
        Group(steps, Text(), Text(story.explanation())),
        title="[bold]a fraud model drifts, and heals[/bold]",
        subtitle=f"batch {done} of {story.plan.batches}, served by {story.active}, {elapsed_s:.0f} s",
        box=box.ROUNDED, padding=(0, 1), height=PANEL_LINES,
    )  # fmt: skip


def _table(story: Story, width: int, shown: int) -> Table:
    wide = width >= WIDE
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="dim", expand=False)
    table.add_column("batch", justify="right")
    table.add_column("V14 moved (FIDI)", no_wrap=True)
    if wide:
        table.add_column("conflicts", justify="right")
    table.add_column("frozen", justify="right", min_width=6)
    table.add_column("served", justify="right", min_width=6)
    table.add_column("lift of accuracy", no_wrap=True)
    table.add_column("by", justify="right", min_width=3)
    table.add_column("then", no_wrap=True)
    for row in [story.rows[i] for i in sorted(story.rows)][-shown:]:
        cells: list[RenderableType] = [
            Text(str(row.batch_idx), style="bold" if row.batch_idx == story.plan.drift_from else ""),
            z_bar(row.z_score, story.plan.threshold, 14 if wide else 8),
        ]
        if wide:
            cells.append(Text(str(row.n_conflicts), style="yellow" if row.n_conflicts >= 5 else "dim"))
        cells += [
            Text(score(row.accuracy_shadow), style="dim"),
            Text(score(row.accuracy_healed), style="bold"),
            lift_bar(row.acc_lift, 8 if wide else 5),
            Text(row.adapter_version),
            happened(row, story),
        ]
        table.add_row(*cells)
    return table


def happened(row: Metrics, story: Story) -> Text:
    """What the batch led to."""
    if row.rolled_back:
        return Text(f"taken back: {row.next_version}", style="bold magenta")
    if row.action == "heal-failed":
        return Text("heal failed", style="bold red")
    if row.action.startswith("heal"):
        ready = row.next_version != row.adapter_version
        return Text(f"healed: {row.next_version}" if ready else "healing ..", style="cyan")
    if row.batch_idx == story.plan.drift_from:
        return Text("the drift begins", style="yellow")
    return Text("" if row.settled else "..", style="dim")


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
    return text.append(f" {z:4.2f}", style="bold yellow" if over else "")


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


def _latest(story: Story) -> list[Text]:
    lines = [event_line(event) for event in story.events[-EVENTS:]]
    return [*lines, *[Text()] * (EVENTS - len(lines))]


def event_line(event: Event) -> Text:
    """Kind and message, in the colour of the kind."""
    text = Text.assemble((f" {clean(event.kind):<18}", STYLES.get(event.kind, "")), clean(event.message))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def batch_line(row: Metrics, story: Story) -> str:
    """One settled batch for a pipe."""
    note = happened(row, story).plain
    return (
        f"batch {row.batch_idx:>3}  z {score(row.z_score):>5}  accuracy {score(row.accuracy_healed)} served, "
        f"{score(row.accuracy_shadow)} frozen ({score(row.acc_lift, sign=True)})  by {row.adapter_version}"
        + (f"  {note}" if note else "")
    )
