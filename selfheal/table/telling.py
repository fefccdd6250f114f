"""What `selfheal train --csv` did, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfheal.table.training import Trained
from shared.bundle import Bundle
from shared.scores import cost_threshold
from shared.table.schema import Categories, Column, Numeric, Table


def lines(made: Trained, folder: Path) -> Iterator[str]:
    """Rows, split, columns, thresholds, scores beside flagging nobody; where the bundle is."""
    manifest, parts = made.bundle.manifest, made.parts
    total = sum(parts.values())
    yield f"{total} rows: the first {parts['training']} train, {parts['check']} check and calibrate, " + (
        f"the last {parts['held-out']} are held out ({made.judged.frauds} frauds)"
    )
    if made.bad:
        more = " ..." if made.bad > len(made.faults) else ""
        yield f"{made.bad} bad rows left out: {'; '.join(made.faults)}{more}"
    if manifest.table is not None:
        yield f"{len(manifest.features)} features of {len(manifest.table.columns)} columns:"
        width = max(len(name) for name, _ in used(manifest.table))
        yield from (f"  {name:<{width}}  {what}" for name, what in used(manifest.table))
        if manifest.table.unused:
            yield "not used:"
            yield from (f"  {name or '(no name)'}: {why}" for name, why in manifest.table.unused.items())
    if manifest.rule is not None:
        rule = manifest.rule
        yield f"rule: {rule.feature} {rule.op} {rule.threshold:g}"
    yield f"flagged above p = {manifest.thresholds.flag:.4g}: {_why(made.bundle)}"
    yield from _scores(made)
    own = f", {made.kept_trained} of them not held out" if made.kept_trained else ""
    yield f"kept for diagnosis: {made.kept} rows{own}"
    yield f"bundle {made.bundle.hash[:16]} in {folder}"


def used(table: Table) -> list[tuple[str, str]]:
    """Each column that makes features, and what became of it."""
    return [(column.name, _what(column)) for column in table.columns]


def _what(column: Column) -> str:
    if isinstance(column, Numeric):
        more = ", and a feature that says so" if column.flagged else ""
        return f"number; where missing {column.median:g}, the median{more}"
    if isinstance(column, Categories):
        return f"{len(column.values)} categories, a feature each, and one for all others"
    return f"how common each of {len(column.classes)} categories was, in steps of two"


def _why(bundle: Bundle) -> str:
    manifest = bundle.manifest
    costs, budget = manifest.costs, manifest.alerts_per_1000
    amount = None if manifest.table is None else manifest.table.amount
    whose = "" if amount is None else f", the mean {amount} of frauds,"
    priced = f"a missed fraud costs {costs.missed_fraud:g}{whose} and a false alarm {costs.false_alarm:g}"
    if budget is None:
        return priced
    if manifest.thresholds.flag > cost_threshold(costs):
        return f"the budget of {budget:g} alerts in 1,000 is stricter than the costs, where {priced}"
    return f"{priced}; that is stricter than the budget of {budget:g} alerts in 1,000"


def _scores(made: Trained) -> Iterator[str]:
    j = made.judged
    yield f"held out             {'model':>9}  {'flag nobody':>11}"
    for name, model, nobody in (
        ("cost a transaction", j.cost, j.cost_of_none),
        ("accuracy", j.scores.accuracy, 1 - j.frauds / j.rows),
        ("precision", j.scores.precision, None),
        ("recall", j.scores.recall, 0.0),
        ("F1", j.scores.f1, 0.0),
        (f"precision at {j.alerts}", j.precision_at, None),
        (f"recall at {j.alerts}", j.recall_at, 0.0),
        ("flagged of 1,000", 1_000 * j.flagged, 0.0),
    ):
        yield f"  {name:<18} {model:9.4g}  {'-' if nobody is None else format(nobody, '.4g'):>11}"
