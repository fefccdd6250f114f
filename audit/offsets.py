"""Rules `offsets` and `state`: the groups against the logs, the monitor's state against what it has published."""

from __future__ import annotations

from audit.contract import json_object
from audit.history import Order
from audit.log import GROUPS, Log, Name
from audit.report import Report

DECIDED_BY = ("heal-finished", "heal-failed", "diagnosed")


def check_offsets(log: Log, report: Report, *, complete: bool = False) -> None:
    """No group stands beyond its log, or behind what retention has left of it. That everything below was answered is
    for the rules answers, outcomes and metrics. complete: every group stands at the end of its log."""
    for service, names in GROUPS.items():
        for name in names:
            committed, unread = log.committed(service, name), 0
            for partition, span in log.spans(name).items():
                where = f"{log.topic(name)}/{partition}"
                at = committed.get(partition)
                if at is None:
                    empty = span.low == span.settled
                    if not empty:
                        report.check("offsets", not complete, where, f"the {service}'s group has read nothing of it")
                        report.note(f"the {service}'s group has never committed an offset of {log.topic(name)}")
                    continue
                beyond = f"the {service}'s group has committed {at}, the log ends at {span.end}"
                report.check("offsets", at <= span.end, where, beyond)
                lost = f"the {service}'s group has committed {at}, retention has taken everything below {span.low}"
                report.check("offsets", at >= span.low, where, lost)
                unread += _after(log, name, partition, at) if complete and at < span.settled else 0
            if complete:
                why = f"the {service}'s group has not read {unread} records (--complete)"
                report.check("offsets", not unread, log.topic(name), why)


def _after(log: Log, name: Name, partition: int, offset: int) -> int:
    """Records from there on that its reader must still read: at the end of a log may lie what is no record, and of the
    events only outcomes concern the monitor, whose own goodbye always comes after its last commit."""
    end = log.spans(name)[partition].settled
    left = (record for record in log.read(name, partition) if offset <= record.offset < end)
    if name == "events":
        return sum((json_object(record.value) or {}).get("kind") in DECIDED_BY for record in left)
    return sum(1 for _ in left)


def check_state(log: Log, report: Report, orders: list[Order], last_idx: int) -> None:
    """Of a monitor at rest. last_idx: highest batch_idx of all rows, 0 without one."""
    at_rest: tuple[Name, ...] = ("metrics", "control", "state")
    if any(span.settled != span.end for name in at_rest for span in log.spans(name).values()):
        report.note("the monitor was at work, so its state was not compared")
        return
    core: dict[str, object] | None = None
    where, turn = "", 0
    for record in log.read("state"):
        if record.key != b"core":
            continue
        core, where = json_object(record.value), record.where
        now = core.get("turn") if core is not None else None
        rises = type(now) is int and now > turn
        report.check("state", rises, where, f"turn {now} after turn {turn}: two monitors wrote, or one forgot")
        turn = now if isinstance(now, int) else turn
    if core is None:
        report.check("state", last_idx == 0, log.topic("state"), "no state, but metrics rows")
        return
    active = [o.version for o in orders if o.setting == "active"]
    report.check("state", core.get("batches") == last_idx, where, f"{core.get('batches')} batches, rows say {last_idx}")
    if active:
        why = f"active {core.get('active')}, the last control record says {active[-1]}"
        report.check("state", core.get("active") == active[-1], where, why)
