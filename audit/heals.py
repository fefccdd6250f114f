"""Rule `outcomes`: every heal request has exactly one, and what it names was published with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from audit.adapters import Adapters
from audit.events import Events, Said
from audit.log import Log, settled, truncated
from audit.report import Report

OUTCOMES = ("heal-finished", "heal-failed", "diagnosed")
HEALER = "healer"


def check(
    log: Log, report: Report, events: Events, adapters: Adapters, dead: Collection[str], skew_s: float, *,
    complete: bool = False,
) -> None:  # fmt: skip
    """dead: records (topic/partition/offset) that became dead letters. skew_s: between the clocks of two services.
    complete: requests beyond the committed offsets must have their outcome, too."""
    group = log.committed("healer", "heal-requests")
    outcomes: dict[str, list[Said]] = defaultdict(list)
    others: dict[str, int] = Counter()
    for said in events.all:
        if said.service != HEALER or (request := said.text("request_id")) is None:
            continue
        if said.kind in OUTCOMES:
            outcomes[request].append(said)
        else:
            others[request] += 1
    asked: dict[str, int] = Counter()
    for each in events.asked:
        where, record = each.record.where, each.record
        if where in dead:
            report.check("outcomes", True, where, "")
            continue
        due = record.offset < group.get(record.partition, 0)
        if each.request_id is None:
            report.check("outcomes", not due, where, "no request, and no dead letter for it")
            continue
        asked[each.request_id] += 1
        got = len(outcomes[each.request_id]) or min(others[each.request_id], 1)
        if due or got >= asked[each.request_id]:
            why = f"{each.request_id} has no outcome, and the healer's group has committed past it"
            report.check("outcomes", got >= asked[each.request_id], where, why)
            early = max((record.at_ms - s.record.at_ms for s in outcomes[each.request_id][-1:]), default=0) / 1000
            why = f"{each.request_id} was answered {early:.1f} s before it was asked: read before it was committed"
            report.check("outcomes", early <= skew_s, where, why)
        elif complete and settled(log, "heal-requests", record):
            report.check("outcomes", False, where, f"{each.request_id} is not answered (--complete)")
        else:
            report.count("heal requests not yet answered")
    for request, said_of in outcomes.items():
        if len(said_of) > asked[request] and (asked[request] or not truncated(log, "heal-requests")):
            extra = said_of[asked[request]]
            why = f"outcome {asked[request] + 1} of {request} ({extra.kind}), which was asked {asked[request]} times"
            report.check("outcomes", False, extra.record.where, why)
        for said in said_of:
            _published(report, said, adapters)
    _made_for(log, report, adapters, outcomes, asked)


def _published(report: Report, said: Said, adapters: Adapters) -> None:
    """What heal-finished names is there, and was made for it."""
    for fact in ("pre_version", "post_version"):
        if said.kind != "heal-finished" or (version := said.text(fact)) is None:
            continue
        made = adapters.published.get(version)
        fits = made is not None and made.request == said.text("request_id")
        what = "no usable adapter of that version" if made is None else f"it was made for {made.request!r}"
        report.check("outcomes", fits, said.record.where, f"names {fact} {version}: {what}")


def _made_for(
    log: Log, report: Report, adapters: Adapters, outcomes: dict[str, list[Said]], asked: dict[str, int]
) -> None:
    """No adapter without the outcome that belongs to it."""
    for made in adapters.published.values():
        if made.request not in asked or not settled(log, "adapters", made.record):
            continue
        named = {s.text(f) for s in outcomes[made.request] for f in ("pre_version", "post_version")}
        why = f"{made.version} was published for {made.request}, whose outcome does not name it"
        report.check("outcomes", made.version in named, made.record.where, why)
