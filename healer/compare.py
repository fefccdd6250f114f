"""Two adapters on the same labelled rows, before either learns from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.adapters import Adapter
from shared.bundle import Array, Bundle
from shared.forward import Folded, Network, probabilities
from shared.scores import cut_in_force

LEAST = 1e-6  # a probability is taken as at least this, and at most 1 minus it: one row cannot decide a sum


class Paired(NamedTuple):
    """rows: compared. tally: rows on which exactly one decides rightly at the threshold in force for costs; won_* the
    base does, lost_* the active one. log_loss_*: summed over the rows. right_*: rows decided rightly at the flag
    threshold."""

    rows: int
    tally: dict[str, int]
    log_loss_base: float
    log_loss_active: float
    right_base: int
    right_active: int


def served(bundle: Bundle, adapter: Adapter, x: Array) -> npt.NDArray[np.float64]:
    """(n, d) float32 as fed to (n,): the probabilities that a scorer serves with this adapter."""
    network = Network.of(bundle)
    return probabilities(x, network, [Folded.of(adapter, network)])[1].astype(np.float64)


def compare(bundle: Bundle, base: Adapter, active: Adapter, x: Array, y: npt.NDArray[np.int8]) -> Paired:
    """x (n, d) float32 as fed, y (n,) of 0/1; n may be 0."""
    fraud, cut = y == 1, cut_in_force(bundle.manifest)
    by_base, by_active = served(bundle, base, x), served(bundle, active, x)
    differ = (by_base > cut) != (by_active > cut)
    won = differ & ((by_base > cut) == fraud)
    lost = differ & ~won
    tally = {
        "won_fraud": int((won & fraud).sum()), "lost_fraud": int((lost & fraud).sum()),
        "won_normal": int((won & ~fraud).sum()), "lost_normal": int((lost & ~fraud).sum()),
    }  # fmt: skip
    flag = bundle.manifest.thresholds.flag
    right = [int(((by > flag) == fraud).sum()) for by in (by_base, by_active)]
    return Paired(len(y), tally, _log_loss(by_base, fraud), _log_loss(by_active, fraud), *right)


def _log_loss(p: npt.NDArray[np.float64], fraud: npt.NDArray[np.bool_]) -> float:
    p = np.clip(p, LEAST, 1 - LEAST)
    return float(-np.log(np.where(fraud, p, 1 - p)).sum())
