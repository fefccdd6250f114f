"""From the options of `selfheal produce` to a source of batches and a plan for labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from producer import drift_text, scenarios
from producer.batch import BatchSource
from producer.csv_source import CsvSource
from producer.drift import Drifted
from producer.labels import LabelPlan
from producer.sources import Synthetic
from shared.errors import OperatorError
from shared.table.schema import Table

NEVER = "never"
TOLD = 5  # bad rows, and columns, that the last lines name


class CsvOptions(NamedTuple):
    """path: the file. columns: FEATURE=COLUMN texts. label, amount, id: columns that hold them. delimiter: None looks
    for it."""

    path: Path
    columns: Sequence[str]
    label: str | None
    amount: str | None
    id: str | None
    delimiter: str | None = None


def synthetic(
    *, seed: int, rows: int, scenario: str | None, strength: float | None, drift: Sequence[str], labelled: bool
) -> Synthetic:
    """The generator with a scenario's drift, and further steps on top. Raises OperatorError."""
    if strength is not None and scenario is None:
        raise OperatorError("--strength goes with --scenario reference")
    named = scenarios.find(scenario, strength) if scenario is not None else scenarios.find("S0")
    return Synthetic(
        seed=seed, rows=rows, steps=(*named.steps, *drift_text.parse(drift)), generator=named.generator,
        exact=named.exact, labelled=labelled,
    )  # fmt: skip


def from_csv(options: CsvOptions, features: Sequence[str], *, rows: int, table: Table | None = None) -> CsvSource:
    """A file's rows as the bundle's features. Raises OperatorError."""
    return CsvSource(
        options.path, features, rows=rows, columns=pairs(options.columns), label=options.label,
        amount=options.amount, id=options.id, table=table, delimiter=options.delimiter,
    )  # fmt: skip


def drifted(source: BatchSource, drift: Sequence[str]) -> BatchSource:
    """With drift steps that need no labels, or the source's own. Raises OperatorError."""
    steps = drift_text.parse(drift)
    return Drifted(source, steps) if steps else source


def told(source: CsvSource) -> list[str]:
    """What a person should know about the rows that were read, a line each; empty where there is nothing to say."""
    lines = []
    if source.bad:
        more = f" and {source.bad - TOLD} more" if source.bad > TOLD else ""
        lines.append(f"{source.bad} bad rows left out: {'; '.join(source.faults[:TOLD])}{more}")
    for counts, what in (
        (source.missing, "empty cells filled in"),
        (source.unknown, "unknown categories read as other"),
    ):
        if counts:
            most = ", ".join(f"{name} {count}" for name, count in counts.most_common(TOLD))
            lines.append(f"{counts.total()} {what}: {most}{', ..' if len(counts) > TOLD else ''}")
    return lines


def pairs(texts: Sequence[str]) -> Mapping[str, str]:
    """FEATURE=COLUMN texts as a mapping. Raises OperatorError."""
    split = [text.partition("=") for text in texts]
    if bad := ["".join(parts) for parts in split if not all(parts)]:
        raise OperatorError(f"--column {bad[0]}: write FEATURE=COLUMN, as in V14=amount_zscore")
    return {name: column for name, _, column in split}


def label_plan(*, delay: str, audit_share: float, audit_delay: int, seed: int, flush: bool) -> LabelPlan:
    """delay: a number of batches, or `never`. Raises OperatorError."""
    if delay != NEVER and not (delay.isascii() and delay.isdigit()):
        raise OperatorError(f"--label-delay {delay}: give a number of batches, or `{NEVER}`")
    return LabelPlan(
        delay=None if delay == NEVER else int(delay), audit_share=audit_share, audit_delay=audit_delay, seed=seed,
        flush=flush,
    )  # fmt: skip
