"""What the decisions rest on and the stream does not change: bundle, thresholds, policy, bounds."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from monitor.detect import threshold
from monitor.fidi import Calibration
from monitor.thresholds import Thresholds
from shared.alignment import Floats, log_odds
from shared.bundle import Bundle, Costs, Scores
from shared.errors import OperatorError
from shared.profile import Profile, profile_of
from shared.scores import cut_in_force, expected_cost
from shared.settings import MonitorSettings
from shared.topics import Name

RISE, SLACK = 1.25, 0.01  # of the clean cost (scaled to 0..1): below RISE times it plus SLACK the network does well


class Decision(NamedTuple):
    """One record to publish."""

    topic: Name
    key: str
    record: msgspec.Struct


class Guarding(msgspec.Struct, frozen=True, kw_only=True):
    """For policy guarded. h: z of an alarm, which a quiet stream passes once in quiet_batches blocks. log_evidence: ln
    of MONITOR_EVIDENCE. clean_flags, clean_alerts: shares of the reference rows above the flag and the cost threshold.
    cost_cut: the latter, a probability (shared.scores.cut_in_force). cost_limit: mean cost of a transaction, as a share
    of the dearest mistake, up to which the network does well."""

    profile: Profile
    h: float
    quiet_batches: int
    log_evidence: float
    flag_factor: float
    cooldown: int
    clean_flags: float
    clean_alerts: float
    cost_cut: float
    cost_limit: float

    @classmethod
    def of(cls, bundle: Bundle, settings: MonitorSettings) -> Guarding:
        """Takes about 1 s. Raises OperatorError where the bundle has too few labelled rows of a class."""
        try:
            profile = profile_of(bundle)
        except ValueError as exc:
            raise OperatorError(
                f"{settings.bundle}: {exc}. Train it on a table with more of both, or run the monitor with "
                "--policy observe (only measure) or --policy reference (heal as published)"
            ) from exc
        return cls.over(profile, settings)

    @classmethod
    def over(cls, profile: Profile, settings: MonitorSettings) -> Guarding:
        """The same from a profile at hand."""
        costs, cut = profile.costs, profile.cut
        logits = profile.logit(profile.x)
        # A mean of n values in 0..1 is known to within 2 standard errors of sqrt(mean / n) at most.
        clean = expected_cost(_sigmoid(logits), profile.y, costs, cut) / max(costs.false_alarm, costs.missed_fraud)
        limit = RISE * (clean + 2 * math.sqrt(clean / profile.n)) + SLACK
        return cls(
            profile=profile,
            h=threshold(profile, quiet_batches=settings.quiet_batches),
            quiet_batches=settings.quiet_batches,
            log_evidence=math.log(settings.evidence),
            flag_factor=settings.flag_factor,
            cooldown=settings.cooldown,
            clean_flags=_share_above(logits, profile.flag),
            clean_alerts=_share_above(logits, cut),
            cost_cut=cut,
            cost_limit=min(limit, 0.99),
        )

    @property
    def dearest(self) -> float:
        """Cost of the worse mistake, in the operator's unit."""
        return max(self.profile.costs.false_alarm, self.profile.costs.missed_fraud)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """flag: probability above which a transaction is flagged; cut: above which costs are judged, None: the costs'
    own. clean: scores on the bundle's held-out rows. guarding: with policy guarded and with no other. The rest as in
    MonitorSettings."""

    bundle: str
    calibration: Calibration
    clean: Scores
    costs: Costs
    flag: float
    thresholds: Thresholds
    policy: Literal["guarded", "reference", "observe"] = "reference"
    label_patience: int = 0
    pending_max: int = 5_000
    thin_seed: int = 0
    guarding: Guarding | None = None
    cut: float | None = None

    @classmethod
    def of(cls, bundle: Bundle, settings: MonitorSettings, thresholds: Thresholds) -> Setup:
        """From what the process was given. Raises OperatorError: policy guarded, and a bundle that cannot be."""
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
            cut=cut_in_force(manifest),
            thresholds=thresholds,
            policy=settings.policy,
            label_patience=settings.label_patience,
            pending_max=settings.pending_max,
            thin_seed=settings.thin_seed,
            guarding=Guarding.of(bundle, settings) if settings.policy == "guarded" else None,
        )  # fmt: skip


def _share_above(logits: Floats, probability: float) -> float:
    """Of logits (n,); a threshold of 0 or 1 is taken as next to it."""
    return float((logits > log_odds(min(max(probability, 1e-9), 1 - 1e-9))).mean())


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))
