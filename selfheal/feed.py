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

NEVER = "never"


class CsvOptions(NamedTuple):
    """path: the file. columns: FEATURE=COLUMN texts. label, amount, id: columns that hold them."""

    path: Path
    columns: Sequence[str]
    label: str | None
    amount: str | None
    id: str | None


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


def from_csv(options: CsvOptions, features: Sequence[str], *, rows: int, drift: Sequence[str]) -> BatchSource:
    """A file's rows, with drift steps that need no labels or the file's own. Raises OperatorError."""
    source = CsvSource(
        options.path, features, rows=rows, columns=pairs(options.columns), label=options.label,
        amount=options.amount, id=options.id,
    )  # fmt: skip
    steps = drift_text.parse(drift)
    return Drifted(source, steps) if steps else source


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
