"""The gauntlet's report: gauntlet.json in, Markdown and HTML with pictures out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from producer.scenarios import HEAVY
from selfheal.document import Block, Grid, Heading, Picture, Points, Words, as_html, as_markdown
from selfheal.gauntlet import pictures
from selfheal.gauntlet.quiet import Quiet
from selfheal.gauntlet.summary import QUIET, VERDICTS, Figures
from selfheal.gauntlet.titles import titled
from selfheal.gauntlet.world import variant
from selfheal.tail_lines import REFUSALS, score
from shared.bundle import write_whole
from shared.errors import OperatorError

HEALED, REFUSED, NOTHING, LABELS, TAILS = (
    "Healed from the rows alone", "Refused: only labels can help", "Nothing to heal", "With labels, 20 batches late",
    "Heavy tails",
)  # fmt: skip
GROUPS = (HEALED, REFUSED, NOTHING, LABELS, TAILS)
BEGIN, END = "<!-- gauntlet: written by tools/healing_tables.py -->", "<!-- /gauntlet -->"
WAYS = ("frozen", "published", "healed", "oracle", "all_negative")
NAMES = ("frozen", "published method", "healed", "best possible", "flagging nobody")


class Gauntlet(msgspec.Struct, frozen=True, kw_only=True):
    """gauntlet.json."""

    first_seed: int
    seeds: int
    scenarios: dict[str, Figures]
    quiet: dict[str, Quiet] = {}

    @property
    def command(self) -> str:
        """What made it."""
        batches = sum(q.batches for q in self.quiet.values())
        quiet = f" --quiet-batches-to-run {batches}" if batches else ""
        return f"selfheal experiment gauntlet --seeds {self.seeds} --first-seed {self.first_seed}{quiet} --out DIR"


def read(folder: Path) -> Gauntlet:
    """Raises OperatorError where the folder holds no gauntlet.json of ours."""
    path = folder / "gauntlet.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Gauntlet)
    except (OSError, msgspec.DecodeError) as exc:
        raise OperatorError(f"{path}: {exc}. `selfheal experiment gauntlet --out {folder}` writes it") from exc


def write(folder: Path) -> Path:
    """report.html, report.md and its pictures beside the folder's gauntlet.json; the path of report.html."""
    found = read(folder)
    drawn = pictures.drawn(found.scenarios)
    blocks = document(found, drawn)
    for picture in drawn:
        write_whole(folder / picture.name, picture.png)
    write_whole(folder / "report.md", as_markdown(blocks).encode())
    write_whole(folder / "report.html", as_html(blocks).encode())
    return folder / "report.html"


def document(found: Gauntlet, drawn: Sequence[Picture]) -> list[Block]:
    """drawn: of pictures.drawn."""
    accuracy, curves, verdicts, cost = drawn
    return [
        Heading(1, "Every kind of drift: what is healed, refused, taken back"),
        Words(
            f"{len(found.scenarios)} scenarios, {found.seeds} seeds of each (from {found.first_seed}), each with "
            "its own model: 10 clean batches of 100 transactions, then drift. Played through the services' own "
            f"functions in one process. Made by `{found.command}`."
        ),
        Points(in_short(found)),
        accuracy,
        Heading(2, "Recovery"),
        Words(
            "Recovery: of the accuracy that the drift took and the best informed model has, the share that is back "
            "over the last 20 batches; 1 is all of it. First heal: drifted batches before a repair was in force. "
            "Verdict right: share of drifted batches from the third on. Harm: what any seed lost against the frozen "
            "network over all drifted batches."
        ),
        recovery(found.scenarios),
        Heading(2, "Batch by batch"), curves,
        Heading(2, "What was said"), verdicts,
        Heading(2, "What it costs"),
        Words(
            "Cost per transaction: a false alarm 1, a missed fraud 5, decided where flagging is the cheaper answer. "
            "Precision at k and recall at budget: of the riskiest tenth of each batch, what 100 alerts per 1,000 "
            "transactions allow. The published method runs without labels here, as a night without labels does."
        ),
        cost, costs(found.scenarios),
        *_quiet_section(found),
        Heading(2, "The drifts"), Points([f"**{n}** {f.description}" for n, f in found.scenarios.items()]),
        Heading(2, "How to read this"), Words(CAUTION, note=True),
    ]  # fmt: skip


QUIET_WORDS = (
    "Nothing happens on these streams, so every alarm, activation and withdrawal is false. Promotions and rollbacks "
    "are per 1,000 batches."
)
CAUTION = (
    "Every repair without labels assumes that few features moved, affinely, or that the fraud rate moved, or that "
    "columns changed places. Two worlds with the same rows look the same: normals that moved (S12) and fraud that "
    "adapted (S14) cannot be told from other worlds without labels, and are refused. The best possible answer knows "
    "the drift."
)


def _quiet_section(found: Gauntlet) -> list[Block]:
    if not found.quiet:
        return []
    return [Heading(2, "Quiet streams"), Words(QUIET_WORDS), quiet(found.quiet.values())]


def filled(page: str, found: Gauntlet) -> str:
    """A page of Markdown with the measured tables between its two marks. Raises OperatorError: no such marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise OperatorError(f"no place for the tables: the page needs a line {BEGIN} and, below it, a line {END}")
    blocks: list[Block] = [
        Words(f"`{found.command}`, mean of {found.seeds} seeds:"), Points(in_short(found)), recovery(found.scenarios),
        *([quiet(found.quiet.values())] if found.quiet else []),
    ]  # fmt: skip
    return f"{before}{begin}\n\n{as_markdown(blocks)}\n{end}{after}"


def group_of(name: str) -> str:
    """Which of GROUPS a variant belongs to."""
    if variant(name).labelled:
        return LABELS
    if variant(name).scene.name.endswith(HEAVY):
        return TAILS
    right = VERDICTS[variant(name).plain]
    return NOTHING if right == QUIET else REFUSED if set(right) <= set(REFUSALS) else HEALED


def in_short(found: Gauntlet) -> list[str]:
    """The answers to what a colleague asks first."""
    healed = {n: f for n, f in found.scenarios.items() if group_of(n) == HEALED and f.recovery_mean is not None}
    refused = {n: f for n, f in found.scenarios.items() if group_of(n) == REFUSED}
    lines = []
    if healed:
        worst = min(healed, key=lambda n: healed[n].recovery_mean or 0.0)
        mean = sum(f.recovery_mean or 0.0 for f in healed.values()) / len(healed)
        lines.append(
            f"Without a single label **{mean:.0%}** of the lost accuracy comes back, mean of {len(healed)} kinds of "
            f"drift that can be healed; {worst} is the hardest ({healed[worst].recovery_mean:.0%})."
        )
    if refused:
        share = sum(f.refused for f in refused.values()) / len(refused)
        lines.append(
            f"What cannot be healed from rows is refused: **{share:.1%}** of the last 20 batches of "
            f"{', '.join(refused)} are served by the frozen network, and somebody is told why."
        )
    all_ = found.scenarios
    dear = max(all_, key=lambda n: all_[n].worst_harm_accuracy)
    cost = max(all_, key=lambda n: all_[n].worst_harm_cost)
    lines.append(
        f"Worst harm of any stream: **{all_[dear].worst_harm_accuracy * 100:.2f} points** of accuracy ({dear}), "
        f"{all_[cost].worst_harm_cost:.4f} of cost per transaction ({cost})."
    )
    for q in found.quiet.values():
        labels = "with" if q.labelled else "without"
        lines.append(
            f"{q.batches:,} quiet batches {labels} labels: {_per_1000(q.false_promotions, q.batches)} false promotions "
            f"and {_per_1000(q.false_rollbacks, q.batches)} false rollbacks per 1,000."
        )
    return lines


def recovery(scenarios: Mapping[str, Figures]) -> Grid:
    """A row per scenario, in groups."""
    head = (
        "", "frozen", "published", "healed", "best", "recovery", "worst seed", "first heal (latest)", "verdict right",
        "harm, points", "harm, cost",
    )  # fmt: skip
    rows, strong = list[list[str]](), set[int]()
    for group in GROUPS:
        names = [n for n in scenarios if group_of(n) == group]
        if names:
            strong.add(len(rows))
            rows.append([group, *[""] * (len(head) - 1)])
        rows += [_recovered(n, scenarios[n]) for n in names]
    return Grid(head, rows, frozenset(strong))


def _recovered(name: str, f: Figures) -> list[str]:
    first = "-" if f.first_heal_median is None else f"{f.first_heal_median:g}"
    last = "never" if f.first_heal_max is None else f"{f.first_heal_max:g}"
    return [
        titled(name), *(score(f.ways[way].accuracy) for way in WAYS[:4]),
        score(f.recovery_mean), score(f.recovery_min), "-" if first == "-" else f"{first} ({last})",
        f"{f.verdict_accuracy:.1%}", f"{f.worst_harm_accuracy * 100:.2f}", score(f.worst_harm_cost),
    ]  # fmt: skip


def costs(scenarios: Mapping[str, Figures]) -> Grid:
    """Every figure of every way."""
    head = ("", "accuracy", "F1", "cost", "precision at k", "recall at budget", "flagged")
    rows, strong = list[list[str]](), set[int]()
    for name, found in scenarios.items():
        for way, told in zip(WAYS, NAMES, strict=True):
            w = found.ways[way]
            if way == "healed":
                strong.add(len(rows))
            # Who flags nobody ranks nobody.
            ranked = ["-", "-"] if way == "all_negative" else [score(w.precision_at_k), score(w.recall_at_budget)]
            rows.append(
                [f"{titled(name)}: {told}", score(w.accuracy), score(w.f1), score(w.cost), *ranked, f"{w.flagged:.1%}"]
            )
    return Grid(head, rows, frozenset(strong))


def quiet(found: Iterable[Quiet]) -> Grid:
    """A row with labels and one without."""
    head = (
        "",
        "batches",
        "alarms",
        "false promotions",
        "false rollbacks",
        "served by a repair",
        "harm, points",
        "cost",
    )
    rows = [
        [
            f"{'with' if q.labelled else 'without'} labels", f"{q.batches:,}", str(q.alarms),
            _per_1000(q.false_promotions, q.batches), _per_1000(q.false_rollbacks, q.batches), f"{q.served:,} batches",
            f"{100 * q.harm_accuracy / q.batches:+.4f}", f"{q.harm_cost / q.batches:+.5f}",
        ]
        for q in found if q.batches
    ]  # fmt: skip
    return Grid(head, rows)


def _per_1000(count: int, batches: int) -> str:
    return f"{1_000 * count / batches:.2f}" if batches else "-"
