"""What an adapter may not do, whatever speaks for it. Pure."""

from __future__ import annotations

import math

LEAST = 1e-3  # a smaller share of clean transactions is taken as this: one flag in a thousand is no flood


def too_far(before: float, after: float, clean: float, factor: float, rows: float) -> bool:
    """Shares of flagged transactions before and with an adapter, on the same rows (how many; 0: not known), and on
    clean ones. True where the adapter brings the share further than the factor from the clean one, by more than chance
    does, unless it lies between that and what it is without the adapter: undoing a drift that flags everybody is no
    harm, however much it changes."""
    usual = max(clean, LEAST)
    low, high = usual / factor, usual * factor
    low, high = low - _chance(low, rows), high + _chance(high, rows)
    in_bounds = low <= after <= high
    return not in_bounds and not min(before, usual) <= after <= max(before, usual)


def _chance(share: float, rows: float) -> float:
    """Three standard errors of a share of so many rows; 0 where it is not known how many."""
    return 3 * math.sqrt(max(share * (1 - share), 0.0) / rows) if rows else 0.0


def resting(withdrawn: dict[str, int], kind: str, now: int, cooldown: int) -> bool:
    """Whether labels took a repair of this kind back less than cooldown batches ago. now: batch_idx."""
    return kind in withdrawn and now - withdrawn[kind] < cooldown
