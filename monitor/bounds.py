"""What an adapter may not do, whatever speaks for it. Pure."""

from __future__ import annotations

import math

LEAST = 1e-3  # shares below are taken as this: of 1,000 rows that are flagged or not, one says little


def too_far(before: float, after: float, clean: float, factor: float) -> bool:
    """Shares of flagged transactions before and with an adapter, on the same rows, and on clean ones. True where the
    adapter brings the share further than the factor from the clean one, and further than it is without the adapter:
    undoing a drift that flags everybody is no harm, however much it changes."""
    away = abs(math.log(max(after, LEAST) / max(clean, LEAST)))
    return away > math.log(factor) and away > abs(math.log(max(before, LEAST) / max(clean, LEAST)))


def resting(withdrawn: dict[str, int], kind: str, now: int, cooldown: int) -> bool:
    """Whether labels took a repair of this kind back less than cooldown batches ago. now: batch_idx."""
    return kind in withdrawn and now - withdrawn[kind] < cooldown
