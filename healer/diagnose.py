"""Diagnosis: what happened to the stream, with its evidence, and whether it can be healed without labels. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from healer.columns import find_order
from healer.explain import Explanation, Window, complexity, explain
from healer.gate import Effect, effect_of
from healer.knowledge import Knowledge
from healer.segment import newest_segment
from healer.units import is_unit
from shared.alignment import Alignment, Floats, identity, log_odds
from shared.profile import Profile

Verdict = Literal[
    "none", "units", "scale", "shift", "fraud-rate", "both", "columns-swapped", "outage", "harmless", "unexplained"
]
ENOUGH_BLOCKS = 2
# Accuracy, cost, where 15% are fraud and the cheaper blind decision costs .75; elsewhere in proportion (yardstick).
GAIN = (0.005, 0.03)  # what a repair must bring in the likeliest world
LOSS = (0.01, 0.03)  # what it may lose in the worst
HARMLESS = (0.02, 0.05)  # what the drift may take, at most, to be called harmless
USUAL_RATE, USUAL_BLIND = 0.15, 0.75
FALLEN = 0.5  # of the trained fraud rate: below, a fall looks like fraud that adapted
KEEP, KEEP_STRUCTURE = 3.0, 8.0  # G2 by which a refinement must beat the active state; one that is more complex
# The trust region: how far a repair may go without labels.
SCALE_BOUND = 2_000.0  # a scale, or its inverse
SHIFT_BOUND = 100.0  # reference deviations, in the unit that arrives; float32 then still keeps 1e-5 of one
LOGIT_BOUND = math.log(30)  # of the logit's correction: the odds of fraud by a factor of 30 either way
SLACK = 1.0  # z: the active state explains the rows approximately


class Change(msgspec.Struct, frozen=True):
    """What one feature went through: x_now = shift + scale * x_then."""

    feature: int
    kind: Literal["units", "scale", "shift"]
    shift: float
    scale: float


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """verdict and why; alignment: what would undo it, promote: it may be activated. blocks: how many of the newest
    blocks the verdict is about (0: too few rows of one law to say). misfit: z of the worst column after undoing, and
    the limit it was held against. active_fits: the state in force still explains these rows. effect: estimated,
    where a repair was considered. considered: objective of each kind of explanation (smaller is better)."""

    verdict: Verdict
    reason: str
    blocks: int
    rows: int
    promote: bool = False
    alignment: Alignment | None = None
    changes: tuple[Change, ...] = ()
    fraud_rate: float | None = None
    misfit: float = 0.0
    misfit_limit: float = 0.0
    worst_column: int = 0
    active_fits: bool = False
    refinement: bool = False
    effect: Effect | None = None
    considered: dict[str, float] = {}


def diagnose(knowledge: Knowledge, blocks: Sequence[Floats], active: Alignment | None = None) -> Diagnosis:
    """blocks: rows (n_i, d) as fed, oldest first, at most 10 blocks. active: the state in force, None: frozen."""
    profile = knowledge.profile
    plain = identity(profile.d, profile.fraud_rate)
    kept = newest_segment([profile.read(b, plain) for b in blocks])
    fed = np.concatenate([np.asarray(b, np.float64) for b in blocks[len(blocks) - kept :]])
    limit = knowledge.misfit(len(fed))
    if kept < ENOUGH_BLOCKS:
        return Diagnosis(verdict="none", reason="too few rows of one law", blocks=0, rows=len(fed))
    active_fits = active is not None and max(Window(profile, active.ordered(fed)).misfits(active)) < limit + SLACK
    common: dict[str, Any] = {"blocks": kept, "rows": len(fed), "active_fits": active_fits, "misfit_limit": limit}
    if (dark := outages(profile, fed)) and not _elsewhere(knowledge, fed):
        names = " and ".join(knowledge.names[f] for f in dark)
        reason = f"{names} send{'s' if len(dark) == 1 else ''} one value: what it told is gone"
        return Diagnosis(verdict="outage", reason=reason, worst_column=dark[0], **common)
    order = active.order if active is not None else ()
    window = Window(profile, fed[:, list(order)] if order else fed)
    found = explain(window)
    refused = found.surprise > limit or found.alignment.fraud_rate < FALLEN * profile.fraud_rate
    if refused and (new := find_order(knowledge, fed)) is not None and new != order:
        reordered = Window(profile, fed[:, list(new)])
        explained = explain(reordered)
        # Columns that trade places and move as well can imitate nearly anything, new fraud among it.
        if explained.alignment.near(plain, profile.deviation):
            order, window, found = new, reordered, explained
    alignment = msgspec.structs.replace(found.alignment, order=order)
    return _judged(knowledge, window, found, alignment, active, common)


def _elsewhere(knowledge: Knowledge, fed: Floats) -> bool:
    """Whether what seems to have gone dark is a column of mostly one value in another's place."""
    order = find_order(knowledge, fed)
    return order is not None and not outages(knowledge.profile, fed[:, list(order)])


def _judged(
    knowledge: Knowledge, window: Window, found: Explanation, alignment: Alignment, active: Alignment | None,
    common: dict[str, Any],
) -> Diagnosis:  # fmt: skip
    """The checks, in order: is there anything, does it explain the rows, is it worth it, is it safe."""
    profile = knowledge.profile
    changes = changes_of(alignment)
    verdict = _named(alignment, changes, profile.fraud_rate)
    common |= {"misfit": found.surprise, "worst_column": found.worst, "considered": found.considered}
    if found.surprise > common["misfit_limit"]:
        if verdict == "none" and max(found.misfits[:-1]) <= common["misfit_limit"] and _same_flags(profile, window):
            reason = "features hang together otherwise than before; as many rows are flagged as before"
            return Diagnosis(verdict="harmless", reason=reason, **common)
        reason = (
            f"no shift, scale, unit, fraud rate or order of columns explains {knowledge.names[found.worst]}: "
            f"misfit {found.surprise:.1f} over {common['misfit_limit']:.1f}"
        )
        return Diagnosis(verdict="unexplained", reason=reason, **common)
    if verdict == "none":
        return Diagnosis(verdict="none", reason="the rows follow the reference", **common)
    common |= {"alignment": alignment, "changes": changes, "fraud_rate": alignment.fraud_rate}
    if (beyond := out_of_bounds(knowledge, alignment)) is not None:
        return Diagnosis(verdict="unexplained", reason=beyond, **common)
    if alignment.fraud_rate < FALLEN * profile.fraud_rate:
        reason = f"fraud seems to have fallen to {alignment.fraud_rate:.1%}: that and fraud that adapted look the same"
        return Diagnosis(verdict="unexplained", reason=reason, **common)
    if (rarer_too := _fallen_as_well(found, profile)) is not None:
        reason = (
            f"would read as {verdict}, but a fraud rate that fell to {rarer_too:.1%} explains about as much: that and "
            "fraud that adapted look the same"
        )
        return Diagnosis(verdict="unexplained", reason=reason, **common)
    effect = effect_of(knowledge, window, alignment)
    common["effect"] = effect
    gain, gain_worst, drop = yardstick(profile, effect.gain, effect.gain_worst, effect.drop)
    # Whoever takes fraud for rarer flags less, and looks accurate doing so: that has to pay in cost. It is dear where
    # fraud adapted instead.
    rarer = alignment.fraud_rate < profile.fraud_rate
    # A field in another unit is a fault of the feed, not a matter of opinion: it is put right also where that gains
    # nothing now, as long as it costs nothing.
    fault = verdict == "units" and gain[0] > -GAIN[0] / 3 and gain[1] > -GAIN[1] / 3
    refinement = active is not None and alignment.near(active, profile.deviation)
    # What is in force stays while it gains at all: one that goes and comes where its gain is about GAIN helps nobody.
    least = (0.0, 0.0) if refinement else GAIN
    if not fault and gain[1] <= least[1] and (rarer or gain[0] <= least[0]):
        if drop[0] < HARMLESS[0] and drop[1] < HARMLESS[1]:
            return Diagnosis(verdict="harmless", reason="no decision worth naming changes", **common)
        if rarer:
            reason = "fraud that fell and fraud that adapted look the same here"
            return Diagnosis(verdict="unexplained", reason=reason, **common)
        return Diagnosis(verdict="harmless", reason="undoing it would gain nothing", **common)
    if active is not None and refinement and not _better(window, alignment, active):
        verdict = _named(active, changes_of(active), profile.fraud_rate)
        return Diagnosis(
            verdict=verdict, reason="the active state explains the rows as well", refinement=True, **common
        )
    if not refinement and (gain_worst[0] < -LOSS[0] or gain_worst[1] < -LOSS[1]):
        lost, dearer = effect.gain_worst[0], -effect.gain_worst[1]
        reason = (
            f"would read as {verdict}, but in a world that looks the same, undoing it moves accuracy by {lost:+.3f} "
            f"and cost by {dearer:+.3f}"
        )
        return Diagnosis(verdict="unexplained", reason=reason, **common)
    return Diagnosis(verdict=verdict, reason="explains the rows, and helps in every world they allow", promote=True,
                     refinement=refinement, **common)  # fmt: skip


def _fallen_as_well(found: Explanation, profile: Profile) -> float | None:
    """The fraud rate of a rival explanation that would be refused, None where there is none. A field in another unit
    has no rival in how much fraud there is."""
    units = {c.kind for c in changes_of(found.alignment)} == {"units"}
    if units or found.rival is None or found.rival.fraud_rate >= FALLEN * profile.fraud_rate:
        return None
    return found.rival.fraud_rate


def yardstick(profile: Profile, *effects: tuple[float, float]) -> list[tuple[float, float]]:
    """(accuracy, cost) on the scale of GAIN, LOSS and HARMLESS: cost in units of what deciding blindly costs, accuracy
    of what it gets wrong. Where flags follow costs (as a table's do), accuracy is no aim and counts as 0: rare fraud
    is caught at the price of false alarms."""
    blind = profile.blind_cost / USUAL_BLIND
    follows = profile.flag == profile.cut
    wrong = min(profile.fraud_rate, 1 - profile.fraud_rate) / USUAL_RATE
    return [(0.0 if follows else accuracy / wrong, cost / blind) for accuracy, cost in effects]


def out_of_bounds(knowledge: Knowledge, alignment: Alignment) -> str | None:
    """The trust region: why this is more than a repair without labels may do, None where it is not."""
    profile = knowledge.profile
    for f in alignment.moved:
        a, b, name = alignment.shift[f], alignment.scale[f], knowledge.names[f]
        if not 1 / SCALE_BOUND <= b <= SCALE_BOUND:
            return f"{name} scaled by {b:.4g}: no more than {SCALE_BOUND:g} either way is undone without labels"
        if abs(a) > SHIFT_BOUND * b * profile.deviation[f]:
            return f"{name} shifted by {a:.4g}: no more than {SHIFT_BOUND:g} deviations are undone without labels"
    if abs(alignment.logit_shift(profile.fraud_rate)) > LOGIT_BOUND:
        return (
            f"fraud rate {profile.fraud_rate:.1%} -> {alignment.fraud_rate:.1%}: the odds of fraud are not moved by "
            f"more than a factor of {math.exp(LOGIT_BOUND):.0f} without labels"
        )
    return None


def _same_flags(profile: Profile, window: Window) -> bool:
    """Shares above both thresholds, flag and cost, are the reference's within HARMLESS[0] (less of it where fraud is
    rarer than usual) and 3 standard errors."""
    noise = HARMLESS[0] * min(profile.fraud_rate / USUAL_RATE, 1.0)
    normal, fraud = profile.columns[profile.d]
    usual = np.concatenate([normal, fraud])
    for p in (profile.flag, profile.cut):
        cut = log_odds(min(max(p, 1e-9), 1 - 1e-9))
        now, then = float((window.score > cut).mean()), float((usual > cut).mean())
        if abs(now - then) > noise + 3 * (then * (1 - then) / len(window.score)) ** 0.5:
            return False
    return True


def _better(window: Window, new: Alignment, active: Alignment) -> bool:
    """Is the refinement worth an adapter? A more complex one must gain more than noise does over many looks."""
    trained = window.profile.fraud_rate
    more = complexity(new, trained) - complexity(active, trained)
    gained = window.misfit(active) - window.misfit(new)
    return gained > more + (KEEP if more <= 0 else KEEP_STRUCTURE)


def changes_of(alignment: Alignment) -> tuple[Change, ...]:
    """What each moved feature went through."""
    return tuple(
        Change(f, _kind(alignment.shift[f], alignment.scale[f]), alignment.shift[f], alignment.scale[f])
        for f in alignment.moved
    )


def _kind(shift: float, scale: float) -> Literal["units", "scale", "shift"]:
    if scale == 1:
        return "shift"
    return "units" if shift == 0 and is_unit(scale) else "scale"


def _named(alignment: Alignment, changes: Sequence[Change], trained_rate: float) -> Verdict:
    """One word for all: units only where every change is one, shift likewise."""
    if alignment.order:
        return "columns-swapped"
    if alignment.fraud_rate != trained_rate:
        return "both" if changes else "fraud-rate"
    kinds = {c.kind for c in changes}
    return kinds.pop() if len(kinds) == 1 else "scale" if kinds else "none"


def outages(profile: Profile, fed: Floats) -> list[int]:
    """Columns that send one value where the reference sends many."""
    dark = []
    for f in range(profile.d):
        values, counts = np.unique(fed[:, f], return_counts=True)
        top, usual = counts.max() / len(fed), (profile.x[:, f] == values[counts.argmax()]).mean()
        if (top > 0.5 and profile.top_share[f] < 0.1) or (len(values) == 1 and usual ** len(fed) < 1e-9):
            dark.append(f)
    return dark
