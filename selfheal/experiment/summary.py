"""summary.json: the numbers of a run, under names that outside programs rely on; and many runs as intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from monitor.export import Run
from selfheal.experiment.ceiling import Ceiling
from selfheal.experiment.evaluate import Outcome
from selfheal.experiment.published import BATCHES, DRIFT_STRENGTH

STAGES = ("clean", "drift", "healed", "healed_as_published")
ASIDE = ("oracle", "all_negative", "healed_on_clean")
SHARED = ("seeds", "parameters", "ceiling")  # no measurements
Numbers = dict[str, Any]  # of float, int, None or Numbers


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator sets. batches: streamed, of 100 rows each."""

    drift_strength: float = DRIFT_STRENGTH
    heal_steps: int = 5
    heal_lr: float = 0.003
    fidi_threshold: float = 1.0
    rollback_f1_drop: float = 0.08
    conflict_min: int = 5
    batches: int = BATCHES

    @property
    def as_published(self) -> bool:
        """Whether the published numbers are for this drift and this many batches."""
        return self.drift_strength == DRIFT_STRENGTH and self.batches == BATCHES

    def thresholds(self) -> dict[str, float]:
        """As threshold_config.json, for the monitor."""
        named = ("rollback_f1_drop", "fidi_threshold", "conflict_min", "heal_steps", "heal_lr")
        return {name: getattr(self, name) for name in named}


def lift(values: Sequence[float | None]) -> Numbers:
    """mean, min, max as shares; batches that have a value, and in how many it is above zero."""
    found = [v for v in values if v is not None]
    return {
        "mean": float(np.mean(found)) if found else 0.0,
        "min": min(found, default=0.0),
        "max": max(found, default=0.0),
        "positive_batches": sum(v > 0 for v in found),
        "batches": len(found),
    }


def of_variant(run: Run, drift: Outcome, healed: Outcome) -> Numbers:
    """What one pipeline did. lift: as published, of the adapter just fitted on the rows it was fitted to;
    lift_served: of the adapter that served the batch before its labels were known. recovery: accuracy won on the
    table's rows. snapshots: registry entries with the bundle's own."""
    return {
        "lift": lift([row.acc_lift_post_heal for row in run.rows]),
        "lift_served": lift([row.acc_lift for row in run.rows]),
        "recovery": healed.accuracy - drift.accuracy,
        "rollbacks": len(run.of_kind("rolled-back")),
        "snapshots": 1 + 2 * len(run.of_kind("heal-finished")),
        "heals": len(run.of_kind("heal-finished")),
        "first_drift_batch": next((row.batch_idx for row in run.rows if row.state == "DRIFTING"), None),
    }


def of_seed(
    seed: int, parameters: Parameters, runs: Mapping[Any, Run], outcomes: Mapping[str, Outcome], best: Ceiling
) -> Numbers:
    """One seed. runs: clean and as_published. Fixed names: seeds, stages, lift, rollbacks, snapshots."""
    cost = {name: found.cost for name, found in outcomes.items() if name not in ("clean", "healed_on_clean")}
    drift = outcomes["drift"]
    return {
        "seeds": [seed],
        "parameters": msgspec.to_builtins(parameters),
        "stages": {name: msgspec.to_builtins(outcomes[name]) for name in STAGES},
        **of_variant(runs["clean"], drift, outcomes["healed"]),
        "as_published": of_variant(runs["as_published"], drift, outcomes["healed_as_published"]),
        "aside": {name: msgspec.to_builtins(outcomes[name]) for name in ASIDE},
        "cost": cost,
        "regret": {name: value - cost["oracle"] for name, value in cost.items() if name != "oracle"},
        "cost_change": {
            "healed": cost["healed"] - cost["drift"],
            "healed_as_published": cost["healed_as_published"] - cost["drift"],
            "over_nobody": cost["healed"] - cost["all_negative"],
        },
        "ceiling": msgspec.to_builtins(best),
    }


def of_seeds(summaries: Sequence[Numbers]) -> Numbers:
    """Several seeds: every number that a run measured becomes {median, p05, p95}; what all share stays as it is."""
    return {
        "seeds": [seed for each in summaries for seed in each["seeds"]],
        **{name: summaries[0][name] for name in SHARED[1:]},
        **_spread([{k: v for k, v in each.items() if k not in SHARED} for each in summaries]),
    }


def _spread(many: Sequence[Any]) -> Any:
    if isinstance(many[0], dict):
        return {key: _spread([each[key] for each in many]) for key in many[0]}
    found = [float(v) for v in many if v is not None]
    if not found:
        return None
    low, middle, high = np.quantile(found, (0.05, 0.5, 0.95))
    return {"median": float(middle), "p05": float(low), "p95": float(high)}


def at(summary: Numbers, path: Sequence[str]) -> Any:
    """The number, or the {median, p05, p95}, under a path of keys."""
    found: Any = summary
    for key in path:
        found = found[key]
    return found


def encoded(summary: Numbers) -> bytes:
    """summary.json: the same numbers give the same bytes."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n"


def seeds_csv(summaries: Sequence[Numbers]) -> bytes:
    """A row per seed; every number of its summary under the path of its keys."""
    lines: list[str] = []
    for each in summaries:
        flat = _flat({key: value for key, value in each.items() if key not in SHARED})
        if not lines:
            lines.append(",".join(["seed", *flat]))
        lines.append(",".join([str(each["seeds"][0]), *("" if v is None else repr(v) for v in flat.values())]))
    return ("\n".join(lines) + "\n").encode()


def _flat(numbers: Numbers, path: str = "") -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key, value in numbers.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{path}{key}.")
        else:
            found[path + key] = value
    return found
