"""What the decisions rest on and the stream does not change: bundle, thresholds, policy, bounds."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from monitor.fidi import Calibration
from monitor.thresholds import Thresholds
from shared.bundle import Bundle, Costs, Scores
from shared.settings import MonitorSettings
from shared.topics import Name


class Decision(NamedTuple):
    """One record to publish."""

    topic: Name
    key: str
    record: msgspec.Struct


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """flag: probability above which a transaction is flagged. clean: scores on the bundle's held-out rows. The
    rest as in MonitorSettings."""

    bundle: str
    calibration: Calibration
    clean: Scores
    costs: Costs
    flag: float
    thresholds: Thresholds
    policy: Literal["reference", "observe"] = "reference"
    label_patience: int = 0
    pending_max: int = 5_000
    thin_seed: int = 0

    @classmethod
    def of(cls, bundle: Bundle, settings: MonitorSettings, thresholds: Thresholds) -> Setup:
        """From what the process was given."""
        manifest = bundle.manifest
        statistics = [manifest.statistics[name] for name in bundle.features]
        return cls(
            bundle=bundle.hash,
            calibration=Calibration(
                bundle.features, bundle.watched_column,
                [s.mean for s in statistics], [s.deviation for s in statistics],
            ),
            clean=manifest.clean,
            costs=manifest.costs,
            flag=manifest.thresholds.flag,
            thresholds=thresholds,
            policy=settings.policy,
            label_patience=settings.label_patience,
            pending_max=settings.pending_max,
            thin_seed=settings.thin_seed,
        )  # fmt: skip
