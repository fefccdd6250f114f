"""The gauntlet's numbers: per scenario over its seeds, and as gauntlet.json."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from producer.scenarios import CLEAN
from selfheal.gauntlet.run import Row
from selfheal.gauntlet.world import HEAVY

LAST = 20  # batches behind a recovery
MATTERS = 0.005  # accuracy that the oracle must gain for a recovery to be defined
VERDICTS: dict[str, tuple[str, ...]] = {
    "S0": ("none", "harmless"), "S1": ("shift",), "S2": ("shift",), "S3": ("shift",), "S4": ("scale",),
    "S5": ("units",), "S6": ("shift",), "S7": ("fraud-rate",), "S8": ("both",), "S9": ("unexplained",),
    "S10": ("outage",), "S11": ("shift",), "S12": ("unexplained",), "S13": ("none", "harmless"),
    "S14": ("unexplained",),
}  # fmt: skip


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one scenario. recovery: (healed - frozen) / (oracle - frozen) of accuracy over the last 20 batches, None where
    the oracle gains nothing. first_heal: drifted batches served before the first heal was in force; None: never.
    verdict_accuracy: over drifted batches from the third on; verdict_last over the last 20. refused: share of the last
    20 served by the frozen network. worst_harm_*: of any seed, over all drifted batches, in favour of frozen."""

    seeds: int
    accuracy: tuple[float, float, float]  # frozen, healed, oracle
    cost: tuple[float, float, float]
    recovery_mean: float | None
    recovery_min: float | None
    cost_recovery_mean: float | None
    first_heal_median: float | None
    first_heal_max: float | None
    verdict_accuracy: float
    verdict_last: float
    verdicts: dict[str, int]
    refused: float
    healed_seeds: int
    worst_harm_accuracy: float
    worst_harm_cost: float


def figures(name: str, streams: Sequence[Sequence[Row]]) -> Figures:
    """Of one scenario's streams, one per seed."""
    accuracy = np.array([[r.accuracy for r in rows] for rows in streams])  # (seeds, batches, 3)
    cost = np.array([[r.cost for r in rows] for rows in streams])
    recovery = _recovery(accuracy[:, -LAST:].mean(axis=1))
    cost_recovery = _recovery(-cost[:, -LAST:].mean(axis=1))
    first = [next((k for k, r in enumerate(rows[CLEAN:]) if r.active), math.inf) for rows in streams]
    right = np.array([_right(name, rows) for rows in streams])  # (seeds, drifted batches)
    active = np.array([[r.active for r in rows[-LAST:]] for rows in streams])
    said = [r.verdict for rows in streams for r in rows[CLEAN:]]
    drifted, dear = accuracy[:, CLEAN:].mean(axis=1), cost[:, CLEAN:].mean(axis=1)
    return Figures(
        seeds=len(streams),
        accuracy=_three(accuracy[:, -LAST:]), cost=_three(cost[:, -LAST:]),
        recovery_mean=_mean(recovery), recovery_min=min(recovery, default=None),
        cost_recovery_mean=_mean(cost_recovery),
        first_heal_median=_finite(float(np.median(first))), first_heal_max=_finite(max(first)),
        verdict_accuracy=float(right[:, 2:].mean()), verdict_last=float(right[:, -LAST:].mean()),
        verdicts={v: said.count(v) for v in sorted(set(said))},
        refused=float(1 - active.mean()), healed_seeds=int(active.any(axis=1).sum()),
        worst_harm_accuracy=float(max(0.0, (drifted[:, 0] - drifted[:, 1]).max())),
        worst_harm_cost=float(max(0.0, (dear[:, 1] - dear[:, 0]).max())),
    )  # fmt: skip


def _right(name: str, rows: Sequence[Row]) -> list[bool]:
    """Per drifted batch. S3 comes and goes every ten batches: between two phases nothing is right."""
    plain = name.removesuffix(HEAVY)
    drifted = [r.verdict for r in rows[CLEAN:]]
    if plain != "S3":
        return [v in VERDICTS[plain] for v in drifted]
    return [v in (VERDICTS["S3"] if k // 10 % 2 == 0 else VERDICTS["S0"]) for k, v in enumerate(drifted)]


def _recovery(means: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float]:
    """(seeds, 3) frozen, healed, oracle; only of seeds where the oracle gains anything."""
    return [float((h - f) / (o - f)) for f, h, o in means if o - f > MATTERS]


def _three(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float, float]:
    frozen, healed, oracle = values.mean(axis=(0, 1)).tolist()
    return frozen, healed, oracle


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(scenarios: dict[str, Figures]) -> str:
    """Fixed-width text, a line per scenario."""
    head = (
        f"{'':5} {'accuracy frozen/healed/oracle':>29} {'recovery (min)':>15} {'cost rec.':>9} {'first (max)':>11} "
        f"{'verdict':>8} {'last 20':>8} {'refused':>8} {'harm acc':>9} {'cost':>7}"
    )
    return "\n".join([head, *(_line(name, f) for name, f in scenarios.items())])


def _line(name: str, f: Figures) -> str:
    accuracy = "/".join(f"{a:.3f}" for a in f.accuracy)
    recovery = f"{_text(f.recovery_mean, '.3f')} ({_text(f.recovery_min, '.2f')})"
    first = f"{_text(f.first_heal_median, 'g')} ({_text(f.first_heal_max, 'g')})"
    return (
        f"{name:5} {accuracy:>29} {recovery:>15} {_text(f.cost_recovery_mean, '.3f'):>9} {first:>11} "
        f"{f.verdict_accuracy:8.1%} {f.verdict_last:8.1%} {f.refused:8.1%} {f.worst_harm_accuracy:9.4f} "
        f"{f.worst_harm_cost:7.4f}"
    )


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def as_json(scenarios: dict[str, Figures], seeds: int) -> bytes:
    """gauntlet.json."""
    return msgspec.json.format(msgspec.json.encode({"seeds": seeds, "scenarios": scenarios}), indent=1)
