"""Rules `causes` and `once`: control records and the monitor's events belong together, each has what brought it about
before it, and none was said twice."""

from __future__ import annotations

from collections import Counter

from audit.asked import MONITOR, OWN_ID, Sides, requests, rows, thresholds
from audit.events import Events, Said
from audit.history import Order
from audit.log import Log, settled, truncated
from audit.metrics import Metrics
from audit.network import FIRST_VERSION
from audit.report import Report

CHANGES = ("adapter-activated", "rolled-back")  # each comes with a control record
REFUSAL_SKEW_MS = 1_000  # clocks of two services
OTHERS = ("heal-requested", "heal-failed", "drift-detected", "drift-ended")
FIRST_JUDGED = 3  # scores before a rollback


def check(log: Log, report: Report, events: Events, orders: list[Order], metrics: Metrics) -> None:
    """orders: the control topic. metrics: read already."""
    sides = Sides(log, report, events, orders, metrics)
    _control_and_events(sides)
    requests(sides)
    for said in events.of("adapter-activated", service=MONITOR):
        _activation(sides, said)
    for said in events.of("rolled-back", service=MONITOR):
        _rollback(sides, said)
    rows(sides)
    _repeated(sides)


def target(said: Said) -> str | None:
    """The version that an event of the monitor put in force."""
    return said.text("to_version") or said.text("version")


def _control_and_events(on: Sides) -> None:
    """In one order: a control record for each activation and rollback, and the reverse; previous leads to previous."""
    waiting = [s for s in on.events.all if s.service == MONITOR and target(s) is not None]
    at, active = 0, None
    late = truncated(on.log, "events")
    for order in on.orders:
        if order.setting != "active":
            continue
        where, known = order.record.where, settled(on.log, "control", order.record)
        on.report.check(
            "causes", order.by == MONITOR, where, f"active set by {order.by!r}: the monitor alone does that"
        )
        begins = active is None and order.version == FIRST_VERSION and order.previous in (None, FIRST_VERSION)
        mine = (i for i in range(at, len(waiting)) if _together(waiting[i], order))
        found = next((i for i in mine if not begins or waiting[i].text("previous_bundle")), None)
        if found is not None:
            for said in waiting[at:found]:
                _without_control(on, said)
            at = found + 1
        elif known and not begins and not late:
            why = f"{order.version} made active, and no event adapter-activated or rolled-back says so"
            on.report.check("causes", False, where, why)
        if active is not None:
            why = f"says it follows {order.previous}, but {active} was active"
            on.report.check("causes", order.previous == active, where, why)
            replaced = found is not None and waiting[found].text("previous_bundle") is not None
            on.report.check("once", order.version != active or replaced, where, f"{active} made active twice in a row")
        active = order.version
    for said in waiting[at:]:
        _without_control(on, said)


def _together(said: Said, order: Order) -> bool:
    return target(said) == order.version and (order.batch_id is None or said.text("batch_id") in (None, order.batch_id))


def _without_control(on: Sides, said: Said) -> None:
    if said.kind in CHANGES and settled(on.log, "events", said.record):
        compacted = len(on.orders) > 0 and said.record.at_ms < on.orders[0].record.at_ms
        if not compacted:
            why = f"{said.kind} {target(said)}, and no control record in its place makes it active"
            on.report.check("causes", False, said.record.where, why)


def _activation(on: Sides, said: Said) -> None:
    """A heal that finished before, or another bundle. Policy guarded also switches between states it knows."""
    request, version = said.text("request_id"), said.text("version")
    if said.text("previous_bundle") is not None:
        return
    if request is None:
        guarded = "guarded" in on.events.policies
        on.report.check("causes", guarded, said.record.where, f"{version} activated without a heal or another cause")
        return
    before = [
        s for s in on.events.of("heal-finished")
        if s.text("request_id") == request and s.record.offset < said.record.offset
    ]  # fmt: skip
    if not before and truncated(on.log, "events"):
        return
    fits = [s for s in before if s.text("post_version") == version]
    why = f"{version} activated for {request}, of which no heal-finished before it names that version"
    on.report.check("causes", bool(fits), said.record.where, why)


def _rollback(on: Sides, said: Said) -> None:
    """The fall that the event states is one by the thresholds, and the metrics show it; or a scorer refused."""
    where, left = said.record.where, said.text("from_version")
    f1, accuracy = said.number("mean_f1"), said.number("mean_accuracy")
    if f1 is None or accuracy is None:
        if "guarded" in on.events.policies:
            return
        refused = [
            s for s in on.events.of("adapter-rejected")
            if s.text("version") == left and s.record.at_ms <= said.record.at_ms + REFUSAL_SKEW_MS
        ]  # fmt: skip
        why = f"rolled back from {left} without a fall in the metrics, and no scorer had refused it"
        on.report.check("causes", bool(refused), where, why)
        return
    base_f1, base_accuracy = said.number("baseline_f1"), said.number("baseline_accuracy")
    fell = [
        limits for limits in thresholds(on)
        if (base_f1 is not None and f1 < base_f1 - limits.get("rollback_f1_drop", 1))
        or (base_accuracy is not None and accuracy < base_accuracy - limits.get("rollback_acc_drop", 1))
    ]  # fmt: skip
    why = f"mean F1 {f1:.3f} of {base_f1}, accuracy {accuracy:.3f} of {base_accuracy}: no fall beyond the thresholds"
    on.report.check("causes", bool(fell), where, why)
    idx = int(said.number("batch_idx") or 0)
    row = on.metrics.rows.get(idx)
    shown = row is not None and row.body["rolled_back"] is True
    if settled(on.log, "events", said.record):
        on.report.check("causes", shown, where, f"the row of batch {idx} does not say that it was rolled back")
    scores = _seen(on, idx)
    enough = len(scores) >= FIRST_JUDGED
    inside = enough and all(
        min(s[i] for s in scores) - 1e-9 <= mean <= max(s[i] for s in scores) + 1e-9
        for i, mean in enumerate((f1, accuracy))
    )
    why = f"mean F1 {f1:.3f}, accuracy {accuracy:.3f}: not a mean of scores in the metrics rows up to it"
    on.report.check("causes", inside, where, why)


def _seen(on: Sides, upto: int) -> list[tuple[float, float]]:
    """(F1, accuracy) that may stand in the health window by batch `upto`: after a heal its own, else as served."""
    found = []
    for row in on.metrics.rows.values():
        for f1, accuracy in (("f1_post_heal", "accuracy_post_heal"), ("f1_healed", "accuracy_healed")):
            if row.body[f1] is not None and row.body[accuracy] is not None:
                found.append((row.body[f1], row.body[accuracy]))
    return found if upto else []


def _repeated(on: Sides) -> None:
    """A decision has one event: by request, or by kind and batch."""
    seen: dict[tuple[str, ...], Said] = {}
    for said in on.events.of(*CHANGES, *OTHERS, service=MONITOR):
        about = said.text("request_id") or said.text("batch_id")
        if about is None:
            continue
        batch = str(said.facts.get("batch_idx", ""))
        decision = (said.kind, about, batch, str(target(said)))
        first = seen.setdefault(decision, said)
        why = f"{said.kind} about {about} was said before, at {first.record.where}"
        on.report.check("once", first is said, said.record.where, why)
    asked: Counter[str] = Counter()
    for each in on.events.asked:
        if each.request_id is not None and OWN_ID.fullmatch(each.request_id):
            asked[each.request_id] += 1
            why = f"{each.request_id} was asked for before"
            on.report.check("once", asked[each.request_id] == 1, each.record.where, why)
