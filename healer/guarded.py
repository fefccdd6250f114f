"""Policy guarded: from a request's rows to its one outcome, whether it is to diagnose or to learn. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

import msgspec
import numpy as np

from healer.compare import compare, served
from healer.diagnose import Diagnosis, diagnose
from healer.knowledge import Knowledge
from healer.learn import learn
from healer.reference import UNLABELLED
from healer.rows import Entry
from healer.trust import rule_trust
from healer.verdicts import told
from shared.adapters import Adapter, first_adapter
from shared.alignment import align, alignment_of, identity
from shared.bundle import Array, Bundle
from shared.errors import Refused
from shared.forward import Folded, Network
from shared.records import HealRequest

BLOCKS_MAX = 10  # the newest; a window that goes further back would mix laws


class Outcome(msgspec.Struct, frozen=True):
    """The one event that answers a request, and the adapter published with it, None for none. facts: protocol.md;
    the same request gives the same."""

    kind: Literal["heal-finished", "diagnosed"]
    message: str
    facts: Mapping[str, Any]
    adapter: Adapter | None = None
    stage: Literal["post-heal", "candidate"] = "post-heal"


def diagnosed(
    bundle: Bundle, knowledge: Knowledge, request: HealRequest, entries: Sequence[Entry], base: Adapter, version: str
) -> Outcome:
    """Purpose diagnose. entries: one for each of request.transactions. base: of request.base_version. version: the
    number that an adapter gets if there is one. Raises Refused: blocks that do not make up the entries."""
    profile = knowledge.profile
    sizes = _sizes(request, len(entries))
    rows = [np.concatenate([e.x for e in entries[a:b]]) for a, b in pairwise([0, *accumulate(sizes)])]
    plain, active = identity(profile.d, profile.fraud_rate), alignment_of(base, profile.fraud_rate)
    found = diagnose(knowledge, [block.astype(np.float64) for block in rows], None if active == plain else active)
    fed = np.concatenate(rows[-found.blocks :] if found.blocks else rows)
    repair, held = None, active
    if found.alignment is not None:
        repair = _repair(bundle, base, found, profile.fraud_rate, version)
        held = alignment_of(repair, profile.fraud_rate)
    first = request.parameters.get("first_batch_idx")
    since = None if first is None or not found.blocks else int(first) + sum(sizes[: -found.blocks])
    changes = [
        {**msgspec.structs.asdict(c), "feature": knowledge.names[c.feature], "shift": held.shift[c.feature],
         "scale": held.scale[c.feature]}
        for c in found.changes
    ]  # fmt: skip
    facts = {
        "purpose": "diagnose", "verdict": found.verdict, "reason": found.reason, "n_blocks": found.blocks,
        "rows": found.rows, "active_fits": found.active_fits, "promote": found.promote,
        "refinement": found.refinement, "changes": changes, "fraud_rate": held.fraud_rate, "order": held.order,
        "shift": held.shift, "scale": held.scale, "misfit": found.misfit, "misfit_limit": found.misfit_limit,
        "worst_feature": knowledge.names[found.worst_column],
        "effect": None if found.effect is None else msgspec.structs.asdict(found.effect),
        "flagged_before": _flagged(bundle, base, fed),
        "flagged_after": _flagged(bundle, base if repair is None else repair, fed),
        "since_batch_idx": since,
    }  # fmt: skip
    message = told(found, profile.fraud_rate, knowledge.names, since, version, base.version)
    if not found.promote:
        return Outcome("diagnosed", message, facts)
    return Outcome("heal-finished", message, {**facts, "post_version": version}, repair)


def learned(
    bundle: Bundle, request: HealRequest, entries: Sequence[Entry], base: Adapter, active: Adapter, version: str
) -> Outcome:
    """Purpose learn. active: what is served. Base and active are compared on the fresh entries before the base trains
    on them: rows of incomplete batches count there where the random audit labelled them, and are not trained on.
    Raises Refused: fresh that is no number of entries; learn's."""
    if not 1 <= request.fresh <= len(entries):
        raise Refused(f"{request.fresh} of {len(entries)} entries", "fresh")
    fresh = [(e.x[e.usable], e.labels[e.usable]) for e in entries[-request.fresh :]]
    paired = compare(bundle, base, active, np.concatenate([x for x, _ in fresh]), np.concatenate([y for _, y in fresh]))
    whole = [e for e in entries if e.complete]
    if not whole:
        raise Refused("too-few-labels: no batch has all of its labels")
    x, y = np.concatenate([e.x for e in whole]), np.concatenate([e.labels for e in whole])
    rule = rule_trust(bundle, Folded.of(base, Network.of(bundle)).undo(x), y)
    new = sum(e.complete for e in entries[-request.fresh :])
    made = learn(bundle, base, x, y, fresh=new, rule_weight=rule.weight, seed=request.request_id)
    left_out = sum(int(((e.labels != UNLABELLED) & ~e.usable).sum()) for e in entries)
    facts = {
        "purpose": "learn", "active_version": active.version, "rows": sum(len(e.x) for e in entries),
        "labelled": len(y), "labels_left_out": left_out, "fresh": request.fresh, "fresh_labelled": paired.rows,
        "tally": paired.tally, "log_loss_base": paired.log_loss_base, "log_loss_active": paired.log_loss_active,
        "right_base": paired.right_base, "right_active": paired.right_active,
        "rule_weight": rule.weight, "rule_precision": rule.precision, "steps": made.steps, "loss_label": made.loss,
        "distance": made.distance, "post_version": version,
    }  # fmt: skip
    message = (
        f"{version} learned from {len(y)} labelled rows; {base.version} against {active.version} on {paired.rows} rows "
        f"new to it: log loss {paired.log_loss_base:.1f} against {paired.log_loss_active:.1f}"
    )
    adapter = msgspec.structs.replace(made.adapter, version=version, parent=base.version)
    return Outcome("heal-finished", message, facts, adapter, "candidate")


def _repair(bundle: Bundle, base: Adapter, found: Diagnosis, trained_rate: float, version: str) -> Adapter:
    """A refinement keeps what the base has learned; what was learned under one law is wrong under another, so a new
    state starts from the bundle's own reflex."""
    if found.alignment is None:
        raise ValueError("a diagnosis without an alignment has no repair")
    own = base if found.refinement else first_adapter(bundle)
    return msgspec.structs.replace(align(own, found.alignment, trained_rate), version=version, parent=base.version)


def _sizes(request: HealRequest, entries: int) -> list[int]:
    """How many entries make each block; one each where the request does not say."""
    sizes = list(request.blocks) or [1] * entries
    if sum(sizes) != entries:
        raise Refused(f"{sum(sizes)} entries in blocks, {entries} named in transactions", "blocks")
    if len(sizes) > BLOCKS_MAX:
        raise Refused(f"{len(sizes)} blocks, a diagnosis reads at most {BLOCKS_MAX}", "blocks")
    return sizes


def _flagged(bundle: Bundle, adapter: Adapter, x: Array) -> float:
    """Share of the rows above the flag threshold."""
    return float((served(bundle, adapter, x) > bundle.manifest.thresholds.flag).mean())
