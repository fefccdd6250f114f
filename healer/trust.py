"""How far learning may go, and how far the rule is believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.bundle import Array, Bundle

ANCHOR = 1e-3  # weight of |w - w0|^2 in the loss
RADIUS = 8.0  # |w - w0| is held to this: the trust region
# Labelled rows from which it is that wide; with fewer it shrinks in proportion. At 50 rows 20 free steps cost 18% of
# log loss on an undrifted stream (worst of 6 seeds: 55%), within 0.5 nothing (0.7%).
RADIUS_ROWS = 800
RULE_WEIGHT = 0.24  # of a rule as precise as ever, beside 1 for the labels


class Anchor:
    """Holds parameters near the bundle's own reflex, the nearer the fewer rows they learn from. All sums are over
    every tensor together."""

    def __init__(self, bundle: Bundle, parameters: Mapping[str, Tensor], rows: int) -> None:
        self.radius = RADIUS * min(1.0, rows / RADIUS_ROWS)
        self._start = {name: bundle.weights[name] for name in parameters}
        self._pairs = [(p, torch.from_numpy(np.array(self._start[name]))) for name, p in parameters.items()]

    def penalty(self) -> Tensor:
        """ANCHOR * |w - w0|^2, with its gradient."""
        return ANCHOR * torch.stack([((p - start) ** 2).sum() for p, start in self._pairs]).sum()

    def distance(self, reflex: Mapping[str, Array]) -> float:
        """|w - w0| of a reflex by the bundle's names."""
        return float(np.sqrt(sum(float(((reflex[name] - start) ** 2).sum()) for name, start in self._start.items())))

    @torch.no_grad()
    def hold(self) -> None:
        """Bring w back to the nearest point within the radius."""
        far = float(torch.stack([((p - start) ** 2).sum() for p, start in self._pairs]).sum().sqrt())
        if far > self.radius:
            for p, start in self._pairs:
                p.copy_(start + (p - start) * (self.radius / far))


class RuleTrust(NamedTuple):
    """precision: share of frauds among labelled rows that the rule names, None where it names none. weight: of the
    rule's term, 0..RULE_WEIGHT."""

    precision: float | None
    weight: float


def rule_trust(bundle: Bundle, x: Array, y: npt.NDArray[np.int8]) -> RuleTrust:
    """x (n, d) float32 as the network reads them, y (n,) of 0/1. RULE_WEIGHT times the share that is left of what the
    rule tells: clip((precision - fraud rate) / (the same on the bundle's own rows), 0, 1). A rule that has gone stale
    names rows no better than chance and gets 0."""
    named = bundle.rule_says_fraud(x)
    clean = bundle.rule_says_fraud(bundle.reference_x)
    if not named.any():
        return RuleTrust(None, 0.0)
    precision = float(y[named].mean())
    if not clean.any():
        return RuleTrust(precision, 0.0)
    told = float(bundle.reference_y[clean].mean() - bundle.reference_y.mean())
    share = (precision - float(y.mean())) / told if told > 0 else 0.0
    return RuleTrust(precision, RULE_WEIGHT * min(max(share, 0.0), 1.0))
