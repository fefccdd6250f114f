"""The gauntlet's numbers as text for a terminal, and as gauntlet.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from selfheal.gauntlet.quiet import Quiet
from selfheal.gauntlet.summary import Figures


def table(scenarios: Mapping[str, Figures]) -> str:
    """Fixed-width text, a line per variant."""
    head = (
        f"{'':5} {'accuracy frozen/publ./healed/oracle':>35} {'recovery (min)':>15} {'cost rec.':>9} "
        f"{'first (max)':>11} {'verdict':>8} {'last 20':>8} {'refused':>8} {'harm acc':>9} {'cost':>7}"
    )
    return "\n".join([head, *(_line(name, f) for name, f in scenarios.items())])


def _line(name: str, f: Figures) -> str:
    accuracy = "/".join(f"{f.ways[way].accuracy:.3f}" for way in ("frozen", "published", "healed", "oracle"))
    recovery = f"{_text(f.recovery_mean, '.3f')} ({_text(f.recovery_min, '.2f')})"
    first = f"{_text(f.first_heal_median, 'g')} ({_text(f.first_heal_max, 'g')})"
    return (
        f"{name:5} {accuracy:>35} {recovery:>15} {_text(f.cost_recovery_mean, '.3f'):>9} {first:>11} "
        f"{f.verdict_accuracy:8.1%} {f.verdict_last:8.1%} {f.refused:8.1%} {f.worst_harm_accuracy:9.4f} "
        f"{f.worst_harm_cost:7.4f}"
    )


def quiet_table(found: Sequence[Quiet]) -> str:
    """A line each for the quiet streams without and with labels."""
    return "\n".join(
        f"{q.batches:,} quiet batches {'with' if q.labelled else 'without'} labels: {q.alarms} alarms, "
        f"{q.false_promotions} false promotions ({q.of_these_learned} learned), {q.false_rollbacks} false rollbacks, "
        f"{q.drift_ended} dropped by themselves; {q.served} batches served by an adapter, mean harm of all: accuracy "
        f"{q.harm_accuracy / q.batches:.5f}, cost {q.harm_cost / q.batches:.5f}"
        for q in found
        if q.batches
    )


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def as_json(scenarios: Mapping[str, Figures], first_seed: int, seeds: int, quiet: Sequence[Quiet] = ()) -> bytes:
    """gauntlet.json. verdict_*: mean over the scenarios. quiet: where quiet streams were run."""
    count = max(len(scenarios), 1)
    body = {
        "first_seed": first_seed, "seeds": seeds,
        "verdict_accuracy": sum(f.verdict_accuracy for f in scenarios.values()) / count,
        "verdict_last": sum(f.verdict_last for f in scenarios.values()) / count,
        "scenarios": scenarios,
        "quiet": {"labelled" if q.labelled else "unlabelled": q for q in quiet},
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n"
