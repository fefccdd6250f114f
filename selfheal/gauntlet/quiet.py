"""Streams on which nothing happens, for long: how often is something put in force, or taken back, all the same?"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from producer.labels import LabelQueue
from selfheal.gauntlet.memory import Kit, Pipeline, transaction_ids
from selfheal.gauntlet.run import counted
from selfheal.gauntlet.world import Variant, arrivals
from shared.records import FIRST_VERSION

STREAM = 500  # batches of one stream; half of the streams have labels


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """false_promotions: adapters put in force, learned ones among them. false_rollbacks: adapters taken back, by labels
    or because they no longer explained the rows; drift_ended: dropped because the rows follow the reference. served:
    batches that another version than the frozen network answered. harm_accuracy, harm_cost: of these, summed over
    batches, in favour of frozen; divide by batches for the mean."""

    labelled: bool
    batches: int = 0
    alarms: int = 0
    requests: int = 0
    false_promotions: int = 0
    of_these_learned: int = 0
    false_rollbacks: int = 0
    drift_ended: int = 0
    served: int = 0
    harm_accuracy: float = 0.0
    harm_cost: float = 0.0


def quiet(variant: Variant, seed: int, kit: Kit, batches: int) -> Quiet:
    """One stream of S0, with or without labels."""
    pipeline, queue, manifest = Pipeline(kit, kit.guarded), LabelQueue(variant.labels), kit.bundle.manifest
    served, lost, dearer = 0, 0.0, 0.0
    stream = arrivals(variant.scene, seed, kit.knowledge.profile.logit, batches)
    for k, arrival in enumerate(stream, start=1):
        batch_id = f"s{seed}-{k:06d}"
        answer = pipeline.batch(k, batch_id, arrival.batch)
        pipeline.labels(queue.add(batch_id, transaction_ids(batch_id, len(arrival.y)), arrival.y))
        if answer.version != FIRST_VERSION:
            frozen, healed = (
                counted(p, arrival.y == 1, manifest.thresholds.flag, manifest.costs)
                for p in (answer.shadow, answer.probability)
            )
            served += 1
            wrong = (healed.false_alarms + healed.missed) - (frozen.false_alarms + frozen.missed)
            lost, dearer = lost + wrong / len(arrival.y), dearer + healed.cost - frozen.cost
    told = pipeline.run()
    activated = told.of_kind("adapter-activated")
    return Quiet(
        labelled=variant.labelled, batches=batches, alarms=len(told.of_kind("alarm")),
        requests=len(told.of_kind("heal-requested")), false_promotions=len(activated),
        of_these_learned=sum(e.facts.get("reason") == "learned" for e in activated),
        false_rollbacks=len(told.of_kind("rolled-back")),
        drift_ended=sum(e.facts.get("reason") == "drift-ended" for e in told.of_kind("drift-ended")),
        served=served, harm_accuracy=lost, harm_cost=dearer,
    )  # fmt: skip


def together(streams: Iterable[Quiet], *, labelled: bool) -> Quiet:
    """The sums over the streams of one kind."""
    total = Quiet(labelled=labelled)
    for each in streams:
        if each.labelled == labelled:
            sums = {
                name: getattr(total, name) + getattr(each, name)
                for name in Quiet.__struct_fields__ if name != "labelled"
            }  # fmt: skip
            total = msgspec.structs.replace(total, **sums)
    return total
