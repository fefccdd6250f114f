"""A record as one line for a person: what it is, in the words of its topic. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.text import Text

from shared.kafka import Taken
from shared.topics import Name

Body = Mapping[str, Any]
PREVIEW = 80
REFUSALS = ("unexplained", "outage")  # verdicts that no repair follows
# One table for the colours of words, in every view that we print.
STYLES = {
    "alarm": "bold yellow", "diagnosed": "bold cyan",
    "drift-detected": "bold yellow", "drift-ended": "green", "heal-requested": "cyan", "heal-finished": "bold cyan",
    "heal-failed": "bold red", "adapter-activated": "bold green", "adapter-rejected": "bold red",
    "rolled-back": "bold magenta", "service-started": "dim", "service-stopped": "dim", "service-restarted": "red",
    "fenced": "bold red", "thinning-changed": "yellow", "record-refused": "red",
    "HEALTHY": "green", "DRIFTING": "yellow", "HEALING": "cyan", "ROLLED_BACK": "magenta",
}  # fmt: skip


_CALENDAR_ENDS_MS = 253_370_764_800_000  # the year 9999


def body_of(record: Taken) -> dict[str, Any] | None:
    """The JSON object on the record, None where it holds something else."""
    if record.value is None:
        return None
    try:
        body = orjson.loads(record.value)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def clean(text: object) -> str:
    """On one line, and nothing in it that a terminal would obey: the bytes of a stranger are shown here."""
    return "".join(c if c.isprintable() else "·" for c in str(text))


def header(record: Taken, name: str) -> str:
    return clean(record.headers.get(name, b"").decode("utf-8", "replace"))


def clock(timestamp_ms: int) -> str:
    """Local time of day, to the millisecond; a stranger's record may bear a time that no calendar has."""
    if not 0 <= timestamp_ms < _CALENDAR_ENDS_MS:
        return "-"
    return datetime.fromtimestamp(timestamp_ms / 1_000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def score(value: object, sign: bool = False) -> str:
    """.724 for 0.724, a dash for what is not known yet; sign: +.224."""
    if not isinstance(value, int | float):
        return "-"
    return f"{value:{'+' if sign else ''}.3f}".replace("0.", ".", 1)


def line(name: Name, record: Taken) -> Text:
    """Time, what it is about, and the rest."""
    text = Text(clock(record.timestamp_ms) + "  ", style="dim")
    if name in _BYTES:
        label, style, rest = _BYTES[name](record)
    elif (body := body_of(record)) is None:
        label, style, rest = _unreadable(record)
    else:
        label, style, rest = _JSON[name](body, record)
    text.append(f"{clean(label):<18} ", style=style or "bold")
    return text.append(clean(rest), style="default")


Line = tuple[str, str, str]


def _unreadable(record: Taken) -> Line:
    if record.value is None:
        return "deleted", "dim", f"key {(record.key or b'').decode('utf-8', 'replace')}"
    return "not a record", "red", f"{len(record.value)} bytes: {record.value[:PREVIEW]!r}"


def event_style(kind: str, facts: Mapping[str, Any]) -> str:
    """The colour of an event: a refusal is not a repair, and a lesson not yet one."""
    if kind == "diagnosed" and facts.get("verdict") in REFUSALS:
        return "bold red"
    if kind in ("heal-requested", "heal-finished") and facts.get("purpose") == "learn":
        return "dim cyan"
    return STYLES.get(kind, "")


def _event(body: Body, _record: Taken) -> Line:
    kind, verdict = str(body.get("kind")), body.get("verdict")
    judged = f"[{verdict}] " if isinstance(verdict, str) else ""
    return kind, event_style(kind, body), f"{body.get('service', ''):<9} {judged}{body.get('message', '')}"


def _transactions(body: Body, record: Taken) -> Line:
    amounts = [a for a in _list(body, "amounts") if isinstance(a, int | float)]
    total = f", amounts {sum(amounts):,.2f}" if amounts else ""
    adapter = f", to be scored by {header(record, 'adapter')}" if "adapter" in record.headers else ""
    rows = f"{len(_list(body, 'transaction_ids'))} transactions{total}{adapter}"
    return str(body.get("batch_id")), "", f"{rows}, created {body.get('created_at')}"


def _labels(body: Body, _record: Taken) -> Line:
    labels = _list(body, "labels")
    return str(body.get("batch_id")), "", f"{len(labels)} labels, {labels.count(1)} fraud, {body.get('kind')}"


def _predictions(body: Body, _record: Taken) -> Line:
    parts = [
        f"{len(_list(body, 'transaction_ids'))} scored by {body.get('adapter_version')}",
        f"{_list(body, 'flag').count(1)} flagged",
        f"mean p {_mean(body, 'probability')}, frozen {_mean(body, 'shadow_probability')}",
        f"{body.get('conflicts')} conflicts",
    ]
    if body.get("candidate_version"):
        parts.append(f"candidate {body['candidate_version']} {_mean(body, 'candidate_probability')}")
    return str(body.get("batch_id")), "", ", ".join(parts)


def _conflicts(body: Body, _record: Taken) -> Line:
    ids = _list(body, "transaction_ids")
    shown = " ".join(map(str, ids[:4])) + (" .." if len(ids) > 4 else "")
    rest = f"{len(ids)} where the rule says fraud and {body.get('adapter_version')} does not: {shown}"
    return str(body.get("batch_id")), "yellow", rest


def _metrics(body: Body, _record: Taken) -> Line:
    state = str(body.get("state"))
    parts = [
        f"{body.get('batch_id')} z {score(body.get('z_score'))}",
        f"accuracy {score(body.get('accuracy_healed'))} (frozen {score(body.get('accuracy_shadow'))}, "
        f"{score(body.get('acc_lift'), sign=True)})",
        f"F1 {score(body.get('f1_healed'))}",
        f"{body.get('n_conflicts')} conflicts",
        f"by {body.get('adapter_version')}, then {body.get('next_version')}",
        str(body.get("action")),
    ]
    return f"{body.get('batch_idx')} {state}", STYLES.get(state, ""), ", ".join(parts)


def _control(body: Body, _record: Taken) -> Line:
    value = body.get("values") or body.get("version") or "none"
    return str(body.get("setting")), "cyan", f"{value}, by {body.get('by')}: {body.get('reason')}"


def _heal_request(body: Body, _record: Taken) -> Line:
    ranges = [r for r in (*_list(body, "transactions"), *_list(body, "labels")) if isinstance(r, dict)]
    rows = " ".join(f"{r.get('topic')}[{r.get('partition')}] {r.get('start')}..{r.get('end')}" for r in ranges[:4])
    return str(body.get("request_id")), "cyan", f"{body.get('reason')}; from {body.get('base_version')}, rows {rows}"


def _adapter(record: Taken) -> Line:
    if record.value is None:
        return _unreadable(record)
    names = ("parent", "stage", "request", "bundle", "summary")
    parts = [f"{n} {header(record, n)[: 12 if n == 'bundle' else 200]}" for n in names if n in record.headers]
    return (record.key or b"").decode("utf-8", "replace"), "green", f"{len(record.value)} bytes, {', '.join(parts)}"


def _dead_letter(record: Taken) -> Line:
    field = f"{header(record, 'field')}: " if "field" in record.headers else ""
    value = b"" if record.value is None else record.value
    source = f"{header(record, 'source.topic')}[{header(record, 'source.partition')}] {header(record, 'source.offset')}"
    size = "no value" if record.value is None else f"{len(value)} bytes: {value[:PREVIEW]!r}"
    return source, "red", f"{field}{header(record, 'reason')} ({header(record, 'service')}); {size}"


def _state(record: Taken) -> Line:
    if record.value is None:
        return _unreadable(record)
    return (record.key or b"").decode("utf-8", "replace"), "", f"{len(record.value)} bytes"


def _list(body: Body, name: str) -> list[Any]:
    """What a stranger wrote may be anything: an empty list where it is none."""
    value = body.get(name)
    return value if isinstance(value, list) else []


def _mean(body: Body, name: str) -> str:
    values = [v for v in _list(body, name) if isinstance(v, int | float)]
    return score(sum(values) / len(values)) if values else "-"


_JSON: dict[Name, Callable[[Body, Taken], Line]] = {
    "events": _event, "transactions": _transactions, "labels": _labels, "predictions": _predictions,
    "conflicts": _conflicts, "metrics": _metrics, "control": _control, "heal-requests": _heal_request,
}  # fmt: skip
_BYTES: dict[Name, Callable[[Taken], Line]] = {"adapters": _adapter, "dead-letters": _dead_letter, "state": _state}
