"""The gauntlet's numbers: per variant over its seeds.

A verdict is right when it names what is true of the batch. While the oracle gains less on a batch's own law than what
a repair must bring (healer/diagnose.GAIN: half a point of accuracy and .03 of cost), nothing that matters has happened
yet, and `none` and `harmless` are right as well. Between two phases of S3 nothing else is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from healer.diagnose import GAIN
from producer.scenarios import CLEAN
from selfheal.gauntlet.run import TOP, WAYS, Row, Stream
from selfheal.gauntlet.world import BATCH_ROWS, Variant

LAST = 20  # batches behind a recovery
BEFORE = 2  # drifted batches that a verdict needs before it can be one: diagnosis wants two blocks of one law
MATTERS = 0.005  # accuracy that the oracle must gain for a recovery to be defined
QUIET = ("none", "harmless")
LOST = "S10"  # an outage: nobody can give back what is gone, and yet it matters
VERDICTS: dict[str, tuple[str, ...]] = {
    "S0": QUIET, "S1": ("shift",), "S2": ("shift",), "S3": ("shift",), "S4": ("scale",), "S5": ("units",),
    "S6": ("shift",), "S7": ("fraud-rate",), "S8": ("both",), "S9": ("unexplained",), "S10": ("outage",),
    "S11": ("shift",), "S12": ("unexplained",), "S13": QUIET, "S14": ("unexplained",), "S15": ("columns-swapped",),
}  # fmt: skip
Numbers = npt.NDArray[np.float64]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way of answering over the last 20 batches, mean over seeds; the ratios are of each seed's sums.
    precision_at_k, recall_at_budget: of the tenth of each batch that looks worst; as many as it takes for people to be
    asked about 100 in 1,000."""

    accuracy: float
    f1: float
    cost: float
    precision_at_k: float
    recall_at_budget: float
    flagged: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one variant. recovery: (healed - frozen) / (oracle - frozen) of accuracy over the last 20 batches, None where
    the oracle gains nothing. first_heal: drifted batches served before the first heal was in force; None: never.
    verdict_accuracy: over drifted batches from the third on; verdict_last: over the last 20; verdict_strict: from the
    third on, the drift's own name alone. refused: share of the last 20 served by the frozen network. worst_harm_*: of
    any seed, over all drifted batches, in favour of frozen. heals: adapters put in force by a diagnosis or again,
    learned: by labels; taken_back: rolled back. verdicts: of drifted batches, all seeds."""

    description: str
    seeds: int
    drifted: int
    ways: dict[str, Way]
    recovery_mean: float | None
    recovery_min: float | None
    cost_recovery_mean: float | None
    first_heal_median: float | None
    first_heal_max: float | None
    verdict_accuracy: float
    verdict_last: float
    verdict_strict: float
    verdicts: dict[str, int]
    refused: float
    healed_seeds: int
    worst_harm_accuracy: float
    worst_harm_cost: float
    last_accuracy_min: float
    heals: int
    learned: int
    taken_back: int
    curve: dict[str, list[float]]


def figures(variant: Variant, streams: Sequence[Stream]) -> Figures:
    """Of one variant's streams, one per seed. curve: mean accuracy of each batch, clean ones too, by way."""
    rows = [s.rows for s in streams]
    counts = np.array([[r.counts for r in stream] for stream in rows], np.float64)  # (seeds, batches, ways, 5)
    sizes = np.array([[r.rows for r in stream] for stream in rows], np.float64)[:, :, None]
    accuracy = 1 - (counts[..., 1] + counts[..., 2]) / sizes  # (seeds, batches, ways)
    cost = counts[..., 3]
    recovery = _recovery(accuracy[:, -LAST:].mean(axis=1))
    cost_recovery = _recovery(-cost[:, -LAST:].mean(axis=1))
    first = [next((k for k, r in enumerate(stream[CLEAN:]) if r.active), math.inf) for stream in rows]
    right, strict = (np.array([_right(variant, stream, strict=s) for stream in rows]) for s in (False, True))
    active = np.array([[r.active for r in stream[-LAST:]] for stream in rows])
    said = [r.verdict for stream in rows for r in stream[CLEAN:]]
    drifted, dear = accuracy[:, CLEAN:].mean(axis=1), cost[:, CLEAN:].mean(axis=1)
    frozen, healed = WAYS.index("frozen"), WAYS.index("healed")
    activated = [e.facts.get("reason") for s in streams for e in s.told.of_kind("adapter-activated")]
    return Figures(
        description=variant.scene.description, seeds=len(streams), drifted=variant.drifted,
        ways={way: _way(counts[:, -LAST:, i], sizes[:, -LAST:, 0]) for i, way in enumerate(WAYS)},
        recovery_mean=_mean(recovery), recovery_min=min(recovery, default=None),
        cost_recovery_mean=_mean(cost_recovery),
        first_heal_median=_finite(float(np.median(first))), first_heal_max=_finite(max(first)),
        verdict_accuracy=float(right[:, BEFORE:].mean()), verdict_last=float(right[:, -LAST:].mean()),
        verdict_strict=float(strict[:, BEFORE:].mean()),
        verdicts={v: said.count(v) for v in sorted(set(said))},
        refused=float(1 - active.mean()), healed_seeds=int(active.any(axis=1).sum()),
        worst_harm_accuracy=float(max(0.0, (drifted[:, frozen] - drifted[:, healed]).max())),
        worst_harm_cost=float(max(0.0, (dear[:, healed] - dear[:, frozen]).max())),
        last_accuracy_min=float(accuracy[:, -LAST:, healed].mean(axis=1).min()),
        heals=sum(r != "learned" for r in activated), learned=activated.count("learned"),
        taken_back=sum(len(s.told.of_kind("rolled-back")) for s in streams),
        curve={way: accuracy[..., i].mean(axis=0).round(4).tolist() for i, way in enumerate(WAYS)},
    )  # fmt: skip


def _right(variant: Variant, rows: Sequence[Row], *, strict: bool) -> list[bool]:
    """Per drifted batch. strict: while the drift is in force its own name alone is right."""
    out = []
    for k, row in enumerate(rows[CLEAN:], start=CLEAN + 1):
        drifted = any(s.profile.weight(k) for s in variant.scene.steps)
        good = VERDICTS[variant.plain] if drifted else QUIET
        if not strict and variant.plain != LOST and row.truth.accuracy < GAIN[0] and row.truth.cost < GAIN[1]:
            good = (*good, *QUIET)
        out.append(row.verdict in good)
    return out


def _way(counts: Numbers, sizes: Numbers) -> Way:
    """counts (seeds, batches, 5), sizes (seeds, batches)."""
    hits, alarms, missed, cost, top = np.moveaxis(counts, -1, 0).sum(axis=2)  # (seeds,) each
    rows, frauds = sizes.sum(axis=1), np.maximum(hits + missed, 1)
    places = sizes.shape[1] * round(BATCH_ROWS * TOP)
    return Way(
        accuracy=float((1 - (alarms + missed) / rows).mean()),
        f1=float((2 * hits / np.maximum(2 * hits + alarms + missed, 1)).mean()),
        cost=float((cost / sizes.shape[1]).mean()),
        precision_at_k=float((top / places).mean()),
        recall_at_budget=float((top / frauds).mean()),
        flagged=float(((hits + alarms) / rows).mean()),
    )


def _recovery(means: Numbers) -> list[float]:
    """(seeds, ways); only of seeds where the oracle gains anything."""
    f, h, o = (means[:, WAYS.index(way)] for way in ("frozen", "healed", "oracle"))
    return [float((b - a) / (c - a)) for a, b, c in zip(f, h, o, strict=True) if c - a > MATTERS]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
