"""Rule `metrics`: every row follows from its prediction and labels, every prediction that the monitor has read has its
row, and the rows are numbered without a gap."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from audit import contract
from audit.answers import Answered
from audit.contract import Invalid
from audit.events import Events
from audit.log import Log, Record, settled, truncated
from audit.measures import Expected, Given, close, expected, is_read, post_heal_fault, row_fault, z_score
from audit.network import Bundle
from audit.report import Report


class Row(NamedTuple):
    """The newest row of a batch. body: without the scores that nobody asks for again."""

    batch_id: str
    body: dict[str, Any]
    lockstep: bool
    where: str


KEPT = (
    "batch_idx", "z_score", "n_conflicts", "action", "rolled_back", "settled", "next_version", "adapter_version",
    "accuracy_healed", "f1_healed", "accuracy_post_heal", "f1_post_heal", "state", "thinning",
)  # fmt: skip


class Metrics:
    """Fed with every answered input, then asked to read the rows. rows: by batch_idx, when that is done."""

    def __init__(
        self, log: Log, report: Report, bundle: Bundle, events: Events, letters: dict[str, Any], skew_s: float
    ) -> None:
        self._log, self._report, self._bundle, self._events, self._letters = log, report, bundle, events, letters
        self._skew_ms = int(skew_s * 1000)
        self._labels: dict[str, list[tuple[int, int]]] = {}
        self._expected: dict[str, list[Expected]] = defaultdict(list)
        self._share, self._seed = events.lowest_share()
        self.rows: dict[int, Row] = {}

    def index(self) -> None:
        """Where the labels of every batch lie."""
        group = self._log.committed("monitor", "labels")
        for record in self._log.read("labels"):
            where, due = record.where, record.offset < group.get(record.partition, 0)
            try:
                batch_id, _, _ = contract.labels(record.value)
            except Invalid as exc:
                unread = self._share < 1 and not self._is_read(record.key or b"")
                told = where in self._letters or not due or unread
                self._report.check("contents", told, where, f"unusable labels ({exc}) without a dead letter")
                continue
            told = where in self._letters and not contract.names_twice(record.value)
            self._report.check("contents", not told, where, "usable labels that were made a dead letter")
            self._labels.setdefault(batch_id, []).append((record.partition, record.offset))

    def add(self, answered: Answered) -> None:
        """An input with a prediction."""
        record, body = answered.prediction, answered.body
        if record is None or body is None or body["bundle"] != self._bundle.hash:
            return
        size = len(record.value or b"")
        if size > contract.MAX_JUDGED_BYTES:
            self._report.count("predictions too large for the monitor to read")
            return
        if record.where in self._letters:
            self._report.check("contents", False, record.where, "a usable prediction that was made a dead letter")
            return
        given: list[Given] = []
        for partition, offset in self._labels.get(body["batch_id"], ()):
            found = self._log.get("labels", partition, offset)
            if found is not None:
                _, ids, labels = contract.labels(found.value)
                given.append((partition, ids, labels))
        where = (record.where, record.partition, record.offset)
        want = expected(where, body, "lockstep" in record.headers, record.at_ms, given, self._bundle)
        self._expected[body["batch_id"]].append(want)

    def read(self) -> None:
        """All rows against what is expected, then what is expected against the rows."""
        finished = {s.text("request_id"): s for s in self._events.of("heal-finished", service="healer")}
        numbered: dict[str, set[int]] = defaultdict(set)
        for record in self._log.read("metrics"):
            body = contract.json_object(record.value)
            if body is None or type(body.get("batch_idx")) is not int or type(body.get("batch_id")) is not str:
                self._report.check("metrics", False, record.where, "no metrics row")
                continue
            batch_id, idx = body["batch_id"], body["batch_idx"]
            numbered[batch_id].add(idx)
            known = settled(self._log, "metrics", record)
            wants = self._expected.get(batch_id, [])
            if known:
                why = self._fault(record, body, wants) or post_heal_fault(body, finished.get(f"heal-{idx}"))
                self._report.check("metrics", not why, record.where, f"batch {batch_id}: {why}")
            before = self.rows.get(idx)
            if before is not None:
                why = ""
                if before.batch_id != batch_id:
                    why = f"batch_idx {idx} is {batch_id}'s here and {before.batch_id}'s at {before.where}"
                elif before.body["settled"] and not body.get("settled"):
                    why = f"batch {batch_id} was settled at {before.where} and is not any more"
                self._report.check("metrics", not why, record.where, why)
            lockstep = any(w.lockstep for w in wants)
            self.rows[idx] = Row(batch_id, {k: body.get(k) for k in KEPT}, lockstep, record.where)
        self._numbering()
        self._unjudged(numbered)
        self._fidi()

    def _fault(self, record: Record, body: dict[str, Any], wants: list[Expected]) -> str:
        if record.key != body["batch_id"].encode():
            return f"key {record.key!r} is not its batch"
        if not wants:
            gone = truncated(self._log, "predictions") or truncated(self._log, "transactions")
            return "" if gone else "a row for a batch without a prediction"
        share = body.get("thinning", 1.0)
        by_chance = share < 1 and self._seed is not None and not any(w.lockstep for w in wants)
        if by_chance and not self._is_read(body["batch_id"].encode(), share):
            return f"was read at a share of {share}, by which the rule leaves it out"
        early = min(want.at_ms for want in wants) - record.at_ms
        if early > self._skew_ms:
            return f"written {early / 1000:.1f} s before its prediction: read before it was committed"
        faults = [row_fault(body, want, self._bundle) for want in wants]
        return "" if "" in faults else faults[0]

    def _numbering(self) -> None:
        if not self.rows:
            return
        last = max(self.rows)
        missing = [i for i in range(1, last + 1) if i not in self.rows]
        self._report.check(
            "metrics", not missing, self._log.topic("metrics"), f"no row has batch_idx {missing[:5]} of 1..{last}"
        )

    def _unjudged(self, numbered: dict[str, set[int]]) -> None:
        group = self._log.committed("monitor", "predictions")
        lowest = min([self._share, *(r.body["thinning"] or 1.0 for r in self.rows.values())])
        for batch_id, wants in self._expected.items():
            due = [w for w in wants if w.offset < group.get(w.partition, 0)]
            if batch_id in numbered:
                # A repeated id is dropped, so one row is enough, and more rows than predictions are too many.
                why = f"batch {batch_id} has {len(numbered[batch_id])} numbers for {len(wants)} predictions"
                self._report.check("metrics", len(numbered[batch_id]) <= len(wants), wants[0].where, why)
            elif not due:
                self._report.count("predictions not yet judged", len(wants))
            elif lowest < 1 and not due[0].lockstep and not self._is_read(batch_id.encode(), lowest):
                self._report.count("predictions left out by thinning", len(due))
            else:
                why = f"batch {batch_id} has no metrics row, and the monitor's group has committed past it"
                self._report.check("metrics", False, due[0].where, why)

    def _is_read(self, key: bytes, share: float | None = None) -> bool:
        """Unknown seed: it may have been left out."""
        return self._seed is not None and is_read(key, self._seed, self._share if share is None else share)

    def _fidi(self) -> None:
        """z of every row from the means of the batches numbered before it."""
        means: list[float] = []
        whole = True  # since the window was last empty, all means are known
        for idx in sorted(self.rows):
            row = self.rows[idx]
            wants = self._expected.get(row.batch_id, [])
            if len(wants) != 1:
                whole, means = False, []  # gone, of another bundle, or repeated: nobody knows which one was read
                continue
            means = [*means[-9:], wants[0].mean]
            if not whole and len(means) < 10:
                self._report.count("rows whose z score rests on batches that are gone")
                continue
            z = z_score(means, self._bundle)
            why = f"batch {row.batch_id}: z_score {row.body['z_score']}, its batches give {z}"
            self._report.check("metrics", close(row.body["z_score"], z), row.where, why)

    def named_wrongly(self, request: dict[str, Any]) -> str:
        """What a reference heal request names besides its batch's own records; empty where all is right."""
        wants, topic = self._expected.get(str(request.get("batch_id")), []), self._log.topic("labels")
        spans = {name: [_range(r) for r in request.get(name) or ()] for name in ("transactions", "labels")}
        if wants and spans["transactions"] not in [[(*w.source, w.source[2] + 1)] for w in wants]:
            return f"transactions {spans['transactions'][:2]}, its batch is {wants[0].source}"
        joined = {(topic, p, o, o + 1) for p, o in self._labels.get(str(request.get("batch_id")), ())}
        strange = [span for span in spans["labels"] if span not in joined]
        if wants and strange:
            return f"labels {strange[:2]}, which are not of its batch"
        if not wants or strange or not self._events.patient:
            return ""
        known = {i for _, p, o, _ in spans["labels"] for i in self._labelled(p, o)}
        return "" if len(known) >= wants[0].rows else f"labels of {len(known)} of {wants[0].rows} rows"

    def _labelled(self, partition: int, offset: int) -> list[str]:
        found = self._log.get("labels", partition, offset)
        return [] if found is None else contract.labels(found.value)[1]

    def lockstep(self) -> bool:
        """Whether every batch was sent in lockstep."""
        return bool(self.rows) and all(r.lockstep for r in self.rows.values())


def _range(span: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    return span.get("topic"), span.get("partition"), span.get("start"), span.get("end")
