"""Trains a bundle on a table: what is read, chosen, split, fitted, decided, judged and kept, in this order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from selfheal.table import choosing, loading, splitting
from selfheal.table.deciding import Judged, flag_threshold, judge
from selfheal.table.fitting import HIDDEN, LEARNING_RATE, Fitted, fit_table
from selfheal.table.rule import resolve
from shared import bundle as bundles
from shared.alignment import Floats
from shared.bundle import Array, Bundle
from shared.errors import OperatorError
from shared.manifest import Costs, FeatureStatistics, Manifest, Rule, Thresholds
from shared.model import tensors_of
from shared.profile import FEW, TWO
from shared.table.reading import CsvFile
from shared.table.schema import Numeric, Table

CONFLICT = 0.30  # as published: the rule says fraud and the model says less than this, or than the flag threshold


@dataclass(frozen=True)
class Wish:
    """What the operator asked for. cost_missed: of one missed fraud, flat; amount: a column that says so per row
    instead. keep: columns to use although they look like ids or go by the clock. The others as in loading.Roles."""

    file: Path
    label: str
    rule: str | None = None
    time: str | None = None
    amount: str | None = None
    cost_missed: float | None = None
    cost_false_alarm: float | None = None
    alerts_per_1000: float | None = None
    delimiter: str | None = None
    categorical: Collection[str] = ()
    ignored: Collection[str] = ()
    keep: Collection[str] = ()
    seed: int = 42


class Trained(NamedTuple):
    """judged: on held-out rows. parts: rows in each. kept_trained: of the rows kept for diagnosis, how many the
    network was trained or calibrated on. bad, faults: rows left out, and the first of them."""

    bundle: Bundle
    judged: Judged
    parts: dict[str, int]
    kept: int
    kept_trained: int
    bad: int
    faults: list[str]


def train_table(folder: Path, wish: Wish, say: Callable[[str], None] = lambda _: None) -> Trained:
    """Write a bundle of the table to the folder. say hears what comes next. Needs PyTorch, 10 s at 200,000 x 30.

    Raises OperatorError: the file, a column, the rule, the costs or the labels do not serve; nothing is written then.
    """
    _check(wish)
    file = CsvFile(wish.file, wish.delimiter)
    say(f"reading {wish.file}")
    loaded = loading.load(file, loading.Roles(wish.label, wish.time, wish.categorical, wish.ignored, wish.keep))
    parts = splitting.split(loaded.labels, wish.label, timed=wish.time is not None)
    table = choosing.choose(
        loaded, parts.train, label=wish.label, time=wish.time, amount=wish.amount, ignored=wish.ignored, keep=wish.keep
    )
    missed, costs = _costs(wish, loaded, parts.train)
    rule = None if wish.rule is None else resolve(wish.rule, table)
    x, y = choosing.matrix(loaded, table), loaded.labels
    kept = splitting.reference_rows(y, parts.held, wish.seed)
    affine = affine_features(table, x[kept])
    say(f"training on {parts.counts['training']} rows of {x.shape[1]} features")
    fitted = fit_table(
        x[parts.train], y[parts.train].astype(np.float32), x[parts.check], y[parts.check].astype(np.float32),
        many=[len(np.unique(values)) >= FEW for values in x[kept].T], seed=wish.seed,
    )  # fmt: skip
    check, held = (_probability(fitted, x[part]) for part in (parts.check, parts.held))
    flag = flag_threshold(costs, check, wish.alerts_per_1000)
    judged = judge(
        held, y[parts.held], missed[parts.held], flag=flag, costs=costs, alerts_per_1000=wish.alerts_per_1000
    )
    manifest = Manifest(
        schema=bundles.SCHEMA,
        features=table.features(),
        hidden=HIDDEN,
        rule=rule,
        watched=_watched(rule, table, x[parts.train], y[parts.train], affine),
        thresholds=Thresholds(flag=flag, conflict=min(CONFLICT, flag)),
        costs=costs,
        fraud_rate=float(y[parts.train].mean()),
        clean=judged.scores,
        statistics=_statistics(table, x[parts.train], affine),
        training={
            "seed": wish.seed, "rows": parts.counts["training"], "epochs": fitted.epochs,
            "learning_rate": LEARNING_RATE, "calibration_slope": fitted.slope, "calibration_offset": fitted.offset,
        },
        weights_sha256="",
        reference_sha256="",
        alerts_per_1000=wish.alerts_per_1000,
        table=table,
    )  # fmt: skip
    made = bundles.save(folder, manifest, tensors_of(fitted.model), x[kept], y[kept])
    trained_on = int((kept < parts.held.start).sum())
    return Trained(made, judged, parts.counts, len(kept), trained_on, loaded.bad, loaded.faults)


def affine_features(table: Table, x: Array) -> list[bool]:
    """Per feature: could a feed shift or scale it? Numeric columns of more than two values; x (n, d)."""
    flags: list[bool] = []
    for column in table.columns:
        flags += [isinstance(column, Numeric)] + [False] * (len(column.features()) - 1)
    return [flag and len(np.unique(values)) > TWO for flag, values in zip(flags, x.T, strict=True)]


def _check(wish: Wish) -> None:
    if wish.amount is not None and wish.cost_missed is not None:
        raise OperatorError("--amount says what each missed fraud costs: leave out --cost-missed, or --amount")
    for name, value in (("--cost-missed", wish.cost_missed), ("--cost-false-alarm", wish.cost_false_alarm)):
        if value is not None and not 0 < value < np.inf:
            raise OperatorError(f"{name} {value:g}: give more than 0")
    if wish.alerts_per_1000 is not None and not 0 < wish.alerts_per_1000 <= 1_000:
        raise OperatorError(f"--alerts-per-1000 {wish.alerts_per_1000:g}: give more than 0 and at most 1000")


def _costs(wish: Wish, loaded: loading.Loaded, train: slice) -> tuple[Floats, Costs]:
    """What each row costs if it is a fraud nobody flags (n,), and the bundle's flat costs: the mean of the frauds."""
    default = Costs()
    false_alarm = default.false_alarm if wish.cost_false_alarm is None else wish.cost_false_alarm
    if wish.amount is None:
        flat = default.missed_fraud if wish.cost_missed is None else wish.cost_missed
        return np.full(loaded.rows, flat), Costs(false_alarm=false_alarm, missed_fraud=flat)
    amounts = loaded.numbers.get(wish.amount)
    if amounts is None:
        raise OperatorError(f"--amount {wish.amount}: it is no column of numbers that is read here")
    known = np.maximum(np.nan_to_num(amounts, nan=float(np.nanmedian(amounts))), 0)  # a refund missed costs nothing
    mean = float(known[train][loaded.labels[train] == 1].mean())
    if mean <= 0:
        raise OperatorError(f"--amount {wish.amount}: frauds have a mean amount of {mean:g}; it must be more than 0")
    return known, Costs(false_alarm=false_alarm, missed_fraud=mean)


def _probability(fitted: Fitted, x: Array) -> Floats:
    with torch.inference_mode():
        logit = fitted.model.frozen(torch.from_numpy(x)).numpy().astype(np.float64)
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -80, 80))))


def _watched(rule: Rule | None, table: Table, x: Array, y: splitting.Labels, affine: list[bool]) -> str:
    """The rule's feature, else the one whose classes lie furthest apart (Kolmogorov-Smirnov), of those that a feed
    could shift where there are any."""
    if rule is not None:
        return rule.feature
    apart = []
    for values in x.T:
        normal, fraud = (np.sort(values[y == c]) for c in (0, 1))
        below = [np.searchsorted(v, values, "right") / len(v) for v in (normal, fraud)]
        apart.append(float(np.abs(below[0] - below[1]).max()))
    order = np.argsort([-a - any(affine) * f for a, f in zip(apart, affine, strict=True)], kind="stable")
    return table.features()[int(order[0])]


def _statistics(table: Table, x: Array, affine: list[bool]) -> dict[str, FeatureStatistics]:
    grid = np.linspace(0, 1, 101)
    return {
        name: FeatureStatistics(
            mean=float(values.mean()), deviation=float(values.std()), quantiles=np.quantile(values, grid).tolist(),
            affine=able,
        )
        for name, values, able in zip(table.features(), x.T.astype(np.float64), affine, strict=True)
    }  # fmt: skip
