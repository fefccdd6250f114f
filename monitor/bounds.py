"""What an adapter may not do, whatever speaks for it. Pure."""

from __future__ import annotations

LEAST = 1e-3  # a smaller share of clean transactions is taken as this: one flag in a thousand is no flood


def too_far(before: float, after: float, clean: float, factor: float) -> bool:
    """Shares of flagged transactions before and with an adapter, on the same rows, and on clean ones. True where the
    adapter brings the share further than the factor from the clean one, unless it lies between that and what it is
    without the adapter: undoing a drift that flags everybody is no harm, however much it changes."""
    usual = max(clean, LEAST)
    in_bounds = usual / factor <= after <= usual * factor
    return not in_bounds and not min(before, usual) <= after <= max(before, usual)


def resting(withdrawn: dict[str, int], kind: str, now: int, cooldown: int) -> bool:
    """Whether labels took a repair of this kind back less than cooldown batches ago. now: batch_idx."""
    return kind in withdrawn and now - withdrawn[kind] < cooldown
