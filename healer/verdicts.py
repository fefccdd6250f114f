"""A diagnosis in words that a person on call reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from healer.diagnose import Change, Diagnosis
from healer.gate import Effect
from shared.alignment import Alignment

NAMED = 3  # changes told one by one; more are counted


def short(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """.44 for 0.44, and +.44 where the sign matters."""
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def what_happened(
    alignment: Alignment, changes: Sequence[Change], trained_rate: float, names: Sequence[str]
) -> list[str]:
    """What an alignment undoes, a phrase each: "V14 arrives x10", "fraud rate 15% -> 40%"."""
    told = [_change(c, names[c.feature]) for c in changes[:NAMED]]
    if len(changes) > NAMED:
        told.append(f"{len(changes) - NAMED} more features moved")
    if alignment.order:
        told.append(_order(alignment.order, names))
    if alignment.fraud_rate != trained_rate:
        told.append(f"fraud rate {trained_rate:.0%} -> {alignment.fraud_rate:.0%}")
    return told


def estimate(effect: Effect) -> str:
    """Of a repair: accuracy and cost before and after, and the span of what it gains over the worlds."""
    low, high = effect.gain_worst[0], effect.gain_best[0]
    return (
        f"estimated accuracy {short(effect.before[0])} -> {short(effect.after[0])} "
        f"({short(low, sign=True)} to {short(high, sign=True)}), "
        f"cost {short(effect.before[1])} -> {short(effect.after[1])}"
    )


def told(
    found: Diagnosis, trained_rate: float, names: Sequence[str], since: int | None, version: str, base: str
) -> str:
    """One line. since: batch_idx of the first batch that the verdict is about. version: of the repair."""
    when = "" if since is None else f" since batch {since}"
    if not found.blocks:
        return f"no verdict: {found.reason}"
    if found.verdict == "outage":
        return f"refused: {found.reason}{when}; not healable without labels"
    if found.verdict == "unexplained":
        return f"refused: {found.reason}{when}; not healable without labels"
    seen: list[str] = []
    if found.alignment is not None:
        seen = what_happened(found.alignment, found.changes, trained_rate, names)
    if found.promote and found.effect is not None:
        return f"{', '.join(seen)}{when}; undone by {version}; {estimate(found.effect)}"
    if found.verdict in ("none", "harmless"):
        return f"nothing undone: {', '.join([*seen, found.reason])}{when}"
    return f"{base} stays: {found.reason}"


def _change(change: Change, name: str) -> str:
    a, b = change.shift, change.scale
    if change.kind == "units":
        return f"{name} arrives x{b:.6g}"
    moved = f"shifted by {a:+.3g}"
    if change.kind == "shift":
        return f"{name} {moved}"
    return f"{name} scaled by {b:.3g}" + (f" and {moved}" if a else "")


def _order(order: Sequence[int], names: Sequence[str]) -> str:
    away = [i for i, j in enumerate(order) if i != j]
    if len(away) == 2:
        return f"columns {names[away[0]]} and {names[away[1]]} swapped"
    some = ", ".join(f"{names[i]} in the place of {names[order[i]]}" for i in away[:NAMED])
    return f"{len(away)} columns in another order ({some}{', ..' if len(away) > NAMED else ''})"
