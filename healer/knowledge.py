"""What diagnosis works out of a profile once: bootstrap thresholds, and scores of labelled rows as they move."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from healer.atoms import steps
from healer.cells import cells_of, class_cells, g2, surprise
from shared.alignment import Floats
from shared.bundle import Bundle
from shared.errors import Refused
from shared.profile import Profile, profile_of

DRAWS = 60
SIZES = (100, 200, 300, 500, 1_000, 2_000, 5_000)  # rows of the windows whose misfit is known
INFORMATIVE = 3  # features in which the classes may have moved on their own
TELLS = 0.1  # Kolmogorov-Smirnov distance between the classes from which a feature is informative
MISFIT_SHARE = 0.005  # of undrifted windows whose goodness of fit is refused
NUDGES = np.linspace(-3, 3, 41)  # reference deviations
# Labelled rows of a class that are moved about. With 400, the gain of S7 was off by .01, twice what is asked.
TABLE_ROWS = 1_500
# The same of normals where fraud is rarer than 15%: in proportion, as a share of them as small as the fraud rate has to
# be told. At 4,000 and 3 features of 30 a diagnosis takes about half a second more.
USUAL_RATE, TABLE_MOST = 0.15, 4_000


class Knowledge:
    """Of one bundle. Everything is drawn with one seed, so the same bundle gives the same answers. names: of the
    features, for what people read."""

    def __init__(self, profile: Profile, *, names: Sequence[str] = (), seed: int = 0) -> None:
        self.profile = profile
        self.names = (*(names or (f"feature {f}" for f in range(profile.d))), "the score")
        self._seed = seed
        self._misfit: dict[int, float] = {}
        self._steps: dict[int, Floats] = {}
        self._nudged: dict[int, tuple[Floats, Floats]] = {}
        self.usual_orders: dict[int, list[float]] = {}  # by rows: what healer/columns.py compares with
        rng = np.random.default_rng(seed)
        rarity = max(1.0, USUAL_RATE / profile.fraud_rate)
        sizes = (min(round(TABLE_ROWS * rarity), TABLE_MOST), TABLE_ROWS)
        self.rows = tuple(
            profile.x[rng.permutation(np.flatnonzero(profile.y == fraud))[:size]]
            for fraud, size in zip((False, True), sizes, strict=True)
        )

    def warm(self) -> Knowledge:
        """Fill what a first diagnosis would otherwise work out: about 1 s. Returns itself."""
        for size in SIZES:
            self.misfit(size)
        for feature in self.informative:
            self.nudged(feature)
        self.nudged(0)  # the likeliest world moves nothing, and is looked up here
        return self

    @property
    def informative(self) -> list[int]:
        """The features that tell the classes apart best; not those of few values."""
        profile = self.profile
        first = np.argsort(-profile.separation)[:INFORMATIVE].tolist()
        tells = (profile.separation > TELLS) & ~profile.one_law[:-1]
        return [f for f in first if not profile.discrete(f) and tells[f]]

    def misfit(self, n: int) -> float:
        """The z of the worst column's G2 that undrifted windows of n rows pass with probability MISFIT_SHARE:
        the bootstrap's 90% quantile, and an exponential tail beyond it (healing.md)."""
        size = min((s for s in SIZES if s >= n), default=SIZES[-1])
        if size not in self._misfit:
            rng = np.random.default_rng([self._seed, size])
            profile, peaks = self.profile, []
            values = np.column_stack([profile.x, profile.logit(profile.x)])
            for _ in range(DRAWS):
                drawn = values[rng.integers(0, profile.n, size)]
                told = [profile.told(drawn, f) for f in range(profile.d)]
                peaks.append(max(self._quiet_z(c, v) for c, v in enumerate([*told, drawn[:, -1]])))
            self._misfit[size] = float(np.quantile(peaks, 0.9)) + 0.35 * math.log(0.1 / MISFIT_SHARE)
        return self._misfit[size]

    def _quiet_z(self, column: int, values: Floats) -> float:
        """Of rows drawn from the reference itself: G2 needs no allowance for the reference's own error."""
        cells = cells_of(self.profile, column, values)
        rate = float(self.profile.among_told(column, np.array(self.profile.fraud_rate)))
        normal, fraud = class_cells(self.profile, column, cells.edges)
        known = float(len(self.profile.told(self.profile.x, column))) if column < self.profile.d else self.profile.n
        statistic = float(g2(cells, (1 - rate) * normal + rate * fraud, np.array(known))) * (1 + len(values) / known)
        return surprise(statistic, cells.degrees)

    def nudges(self, feature: int) -> Floats:
        """(k,) reference deviations by which a class may have moved on its own, ascending, 0 in the middle. Values that
        are few and all known do not lie between those that are known."""
        if not self.profile.discrete(feature):
            return NUDGES
        if feature not in self._steps:
            found = steps(self.profile, feature, len(NUDGES) // 2) / float(self.profile.deviation[feature])
            self._steps[feature] = found[np.abs(found) <= NUDGES[-1]]
        return self._steps[feature]

    def still(self, feature: int) -> int:
        """Which of its nudges moves nothing."""
        return len(self.nudges(feature)) // 2

    def nudged(self, feature: int) -> tuple[Floats, Floats]:
        """Scores (k, m) of the labelled normals and frauds with the feature moved by its nudges."""
        if feature not in self._nudged:
            step = self.nudges(feature) * self.profile.deviation[feature]
            normal, fraud = self.rows
            self._nudged[feature] = self._moved(normal, feature, step), self._moved(fraud, feature, step)
        return self._nudged[feature]

    def _moved(self, rows: Floats, feature: int, by: Floats) -> Floats:
        many = np.repeat(rows[None], len(by), axis=0)
        many[:, :, feature] += by[:, None]
        return self.profile.logit(many.reshape(-1, rows.shape[1])).reshape(len(by), -1)


def knowledge_of(bundle: Bundle) -> Knowledge:
    """Of a bundle, warm. Raises Refused where its labelled rows do not suffice."""
    try:
        profile = profile_of(bundle)
    except ValueError as exc:
        raise Refused(f"not-diagnosable: {exc}; train a bundle with more labelled rows", "bundle") from exc
    return Knowledge(profile, names=bundle.features).warm()
