"""What detection and diagnosis know of a bundle's training data: the law of every column in either class.

A column is a feature 0..d-1, or the score (column d): the frozen network's logit. Laws are empirical; a fraud rate pi
mixes them: F = (1 - pi) F_normal + pi F_fraud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shared.alignment import Alignment, Floats
from shared.bundle import Array, Bundle, Costs
from shared.fills import Fill
from shared.forward import BLOCK, CHUNK, Network
from shared.scores import cost_threshold, cut_in_force

Logit = Callable[[npt.NDArray[np.floating]], Floats]
ORDERS = 4  # Legendre polynomials 1..4: location, spread, skew, tails
FEW = 20  # a column with fewer distinct values is discrete: all its values are atoms
TWO = 2  # values that any affine change could have made of any two others
MIN_CLASS = 30  # labelled rows of a class below which its law is not known
# Kolmogorov-Smirnov distance between the classes, in units of sqrt(1 / normals + 1 / frauds), below which a column is
# taken to follow one law in both (the 95% point of equal laws). Few frauds say little about a column that tells
# nothing; read as a law of their own, they make any fraud rate look possible.
ONE_LAW = 1.36


@dataclass(frozen=True)
class Profile:
    """Built once per bundle with profile_of. x (n, d) float64, y (n,) bool: the labelled reference rows."""

    x: Floats
    y: npt.NDArray[np.bool_]
    logit: Logit  # (n, d) to (n,): the frozen network
    columns: tuple[tuple[Floats, Floats], ...]  # d + 1 times: sorted values of normals, of frauds; all, where one law
    one_law: npt.NDArray[np.bool_]  # (d + 1,) both classes follow the same law there; never the score
    distinct: npt.NDArray[np.int64]  # (d + 1,) distinct values
    top_share: Floats  # (d + 1,) share of the most common value
    deviation: Floats  # (d,)
    separation: Floats  # (d,) Kolmogorov-Smirnov distance between the classes: how informative
    flag: float  # probability above which a row is flagged
    cut: float  # probability above which costs are judged: shared.scores.cut_in_force
    costs: Costs
    fills: Mapping[int, Fill] = field(default_factory=dict)  # by feature: whose empty cells a diagnosis leaves out
    _moments: dict[float, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)
    _merged: dict[int, tuple[Floats, Floats, Floats]] = field(default_factory=dict, repr=False)
    _laws: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def d(self) -> int:
        return len(self.deviation)

    @cached_property
    def frauds(self) -> int:
        return int(self.y.sum())

    @cached_property
    def fraud_rate(self) -> float:
        return float(self.y.mean())

    @property
    def blind_cost(self) -> float:
        """What a transaction costs where the cheaper of flagging nobody and flagging everybody is done."""
        rate = self.fraud_rate
        return min(rate * self.costs.missed_fraud, (1 - rate) * self.costs.false_alarm)

    def told(self, rows: Floats, column: int) -> Floats:
        """Its values in rows (n, d), without empty cells; with them where hardly anything else is left."""
        if (fill := self.fills.get(column)) is None:
            return rows[:, column]
        told = rows[rows[:, fill.flag] != 1, column]
        return told if len(told) >= MIN_CLASS else rows[:, column]

    def law(self, column: int) -> tuple[Floats, Floats]:
        """Sorted values of normals, of frauds (of all, where one law), without empty cells."""
        if column not in self.fills:
            return self.columns[column]
        if column not in self._laws:
            told = self.x[:, self.fills[column].flag] != 1
            both = [told, told] if self.one_law[column] else [told & ~self.y, told & self.y]
            normal, fraud = (np.sort(self.x[rows, column]) for rows in both)
            self._laws[column] = normal, fraud
        return self._laws[column]

    def among_told(self, column: int, fraud_rate: Floats) -> Floats:
        """The fraud rate (P,) among rows whose cell is not empty, where it is this among all."""
        if column not in self.fills:
            return fraud_rate
        full = self.x[:, self.fills[column].flag] != 1
        fraud = fraud_rate * full[self.y].mean()
        return np.asarray(fraud / (fraud + (1 - fraud_rate) * full[~self.y].mean()))

    def known(self, column: int, fraud_rate: Floats) -> Floats:
        """How many plain rows would tell as much of a column's mixture at these rates (P,): n at the trained rate, far
        fewer where most of the mixture is the rarer class; n at any rate of a column with one law."""
        normal, fraud = self.law(column)
        if self.one_law[column]:
            return np.full(np.shape(fraud_rate), float(len(normal)))
        return known_rows(self.among_told(column, fraud_rate), len(normal), len(fraud))

    def known_of_all(self, fraud_rate: float) -> Floats:
        """(d + 1,): the same of every column at one rate."""
        return np.where(self.one_law, self.n, known_rows(np.array(fraud_rate), self.n - self.frauds, self.frauds))

    def discrete(self, column: int) -> bool:
        return bool(self.distinct[column] < FEW)

    def movable(self, column: int) -> bool:
        """Whether an affine change of it could be told from new values."""
        return bool(self.distinct[column] > TWO)

    def class_cdf(self, column: int, t: Floats) -> tuple[Floats, Floats]:
        """P(value <= t) of normals and of frauds; t any shape."""
        normal, fraud = self.law(column)
        return np.searchsorted(normal, t, "right") / len(normal), np.searchsorted(fraud, t, "right") / len(fraud)

    def quantiles(self, column: int, q: Floats, fraud_rates: Floats) -> Floats:
        """(rates, q) of the mixtures; q (Q,) in 0..1, fraud_rates (P,): the least value whose share reaches q."""
        if column not in self._merged:
            values = np.unique(np.concatenate(self.law(column)))
            self._merged[column] = values, *self.class_cdf(column, values)
        values, normal, fraud = self._merged[column]
        rates = self.among_told(column, fraud_rates).tolist()
        at = [np.searchsorted((1 - rate) * normal + rate * fraud, q - 1e-12) for rate in rates]
        return values[np.minimum(np.array(at), len(values) - 1)]

    def read(self, x: npt.NDArray[np.floating], alignment: Alignment) -> Floats:
        """Rows (n, d) as fed to all columns (n, d + 1) as the network reads them: features, then the score."""
        rows = alignment.undo(x, list(self.fills.values()))
        return np.column_stack([rows, self.logit(rows)])

    def moment_sums(self, values: Floats, fraud_rate: float) -> Floats:
        """All columns (n, d + 1) to (d + 1, 4): Legendre moments of the mid-PIT, summed over rows; so they add up."""
        return np.stack([self._legendre(c, values[:, c], fraud_rate).sum(axis=1) for c in range(self.d + 1)])

    def row_moments(self, values: Floats, fraud_rate: float) -> Floats:
        """All columns (n, d + 1) to (n, d + 1, 4)."""
        return np.stack([self._legendre(c, values[:, c], fraud_rate).T for c in range(self.d + 1)], axis=1)

    def moments(self, fraud_rate: float) -> tuple[Floats, Floats]:
        """Mean and variance (d + 1, 4) of one row's Legendre moments under the reference at this fraud rate."""
        key = round(fraud_rate, 4)
        if key not in self._moments:
            if len(self._moments) >= 64:
                self._moments.clear()
            pi, means, variances = key, [], []
            for c, (normal, fraud) in enumerate(self.columns):
                a, b = self._legendre(c, normal, fraud_rate), self._legendre(c, fraud, fraud_rate)
                mean = (1 - pi) * a.mean(axis=1) + pi * b.mean(axis=1)
                means.append(mean)
                variances.append((1 - pi) * (a**2).mean(axis=1) + pi * (b**2).mean(axis=1) - mean**2)
            self._moments[key] = np.stack(means), np.stack(variances)
        return self._moments[key]

    def _legendre(self, column: int, values: Floats, fraud_rate: float) -> Floats:
        """(n,) to (4, n). Values within a float32 rounding of a reference value count as equal to it: x * 100 / 100
        is not always x."""
        normal, fraud = self.columns[column]
        spread = self.deviation[column] if column < self.d else 1.0
        near = 1e-6 * (np.abs(values) + spread)
        above, below = values + near, values - near
        f0 = (np.searchsorted(normal, above, "right") + np.searchsorted(normal, below, "left")) / len(normal)
        f1 = (np.searchsorted(fraud, above, "right") + np.searchsorted(fraud, below, "left")) / len(fraud)
        u = (1 - fraud_rate) * f0 + fraud_rate * f1 - 1  # 2 * midPIT - 1, in -1..1
        s = u * u
        return np.stack([u, (3 * s - 1) / 2, (5 * s - 3) * u / 2, ((35 * s - 30) * s + 3) / 8])


def known_rows(fraud_rate: Floats, normals: int, frauds: int) -> Floats:
    """1 / ((1 - pi)^2 / normals + pi^2 / frauds): how many plain rows tell as much as these of either class."""
    return np.asarray(1 / ((1 - fraud_rate) ** 2 / normals + fraud_rate**2 / frauds))


def profile_of(bundle: Bundle) -> Profile:
    """From a bundle's labelled rows. Raises ValueError where a class has fewer than 30 of them."""
    manifest = bundle.manifest
    return profile_from(
        bundle.reference_x, bundle.reference_y, frozen_logit(Network.of(bundle)),
        flag=manifest.thresholds.flag, costs=manifest.costs, cut=cut_in_force(manifest), fills=bundle.fills,
    )  # fmt: skip


def profile_from(
    x: npt.NDArray[np.floating],
    y: npt.NDArray[np.generic],
    logit: Logit,
    *,
    flag: float = 0.5,
    costs: Costs | None = None,
    cut: float | None = None,
    fills: Sequence[Fill] = (),
) -> Profile:
    """From labelled rows x (n, d), y (n,) of 0/1 and any frozen model's logit. cut: None, the costs' own threshold.
    Raises ValueError as profile_of."""
    costs = costs or Costs()
    rows, fraud = np.asarray(x, np.float64), np.asarray(y) == 1
    if min(fraud.sum(), (~fraud).sum()) < MIN_CLASS:
        raise ValueError(f"diagnosis needs {MIN_CLASS} labelled rows of either class, here are "
            f"{int(fraud.sum())} frauds and {int((~fraud).sum())} others")  # fmt: skip
    values = np.column_stack([rows, logit(rows)])
    classes = [(np.sort(v[~fraud]), np.sort(v[fraud])) for v in values.T]
    counts = [np.unique(v, return_counts=True)[1] for v in values.T]
    separation = [
        np.abs(np.searchsorted(a, v, "right") / len(a) - np.searchsorted(b, v, "right") / len(b)).max()
        for v, (a, b) in zip(rows.T, classes, strict=False)
    ]
    one_law = np.array([*separation, np.inf]) < ONE_LAW * np.sqrt(1 / fraud.sum() + 1 / (~fraud).sum())
    columns = tuple(
        (both, both) if same else pair
        for pair, same, both in zip(classes, one_law.tolist(), np.sort(values, axis=0).T, strict=True)
    )
    return Profile(
        x=rows, y=fraud, logit=logit, columns=columns, one_law=one_law,
        distinct=np.array([len(c) for c in counts]), top_share=np.array([c.max() / len(rows) for c in counts]),
        deviation=np.maximum(rows.std(axis=0), 1e-12), separation=np.array(separation),
        flag=flag, costs=costs, cut=cost_threshold(costs) if cut is None else cut,
        fills={fill.feature: fill for fill in fills if _enough(rows[:, fill.flag] != 1, fraud)},
    )  # fmt: skip


def _enough(told: npt.NDArray[np.bool_], fraud: npt.NDArray[np.bool_]) -> bool:
    """Whether the law of a column can be known from these rows alone."""
    return bool(min((told & fraud).sum(), (told & ~fraud).sum()) >= MIN_CLASS)


def frozen_logit(network: Network) -> Logit:
    """(n, d) of any float to (n,) float64: the network without an adapter. Features so large that float32 overflows
    give the largest finite numbers, not NaN, so that their rank stays."""

    def logit(x: npt.NDArray[np.floating]) -> Floats:
        limit = 1e30
        rows = np.clip(np.asarray(x), -limit, limit).astype(np.float32)
        n = len(rows)
        if n % BLOCK:
            rows = np.concatenate([rows, np.zeros((-n % BLOCK, rows.shape[1]), np.float32)])
        with np.errstate(over="ignore", invalid="ignore"):
            parts: list[Array] = [
                network.logit(network.hidden(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)
            ]
        out = np.concatenate(parts)[:n].astype(np.float64) if parts else np.zeros(0)
        return np.nan_to_num(out, nan=0.0, posinf=limit, neginf=-limit)

    return logit
