"""Rules `answers` and `contents`, and the walk that all rules about a batch share: input by input, in the order of each
partition, with every answer to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from audit import contract
from audit.contract import Input, Invalid
from audit.log import Log, Record, settled, truncated
from audit.report import Report

Where = tuple[int, int]  # partition, offset


class Letter(NamedTuple):
    """A dead letter of an input. digest: of its value, None where it has none."""

    digest: bytes | None
    record: Record  # without its value


class Answered(NamedTuple):
    """An input and what answers it. batch: None where the input is not valid. body: of a prediction that has the
    form the contract asks for."""

    record: Record
    batch: Input | None
    prediction: Record | None
    body: dict[str, Any] | None
    letter: Letter | None


class Answers:
    """complete: inputs beyond the committed offsets must be answered, too."""

    def __init__(self, log: Log, report: Report, d: int, *, complete: bool = False) -> None:
        self._log, self._report, self._d, self._complete = log, report, d, complete
        self._inputs = log.topic("transactions")
        self._predictions: dict[Where, list[Where]] = {}
        self._letters: dict[Where, list[Letter]] = {}
        self.letters_of_others: dict[str, Letter] = {}  # by the record they answer for: labels, predictions, ..
        if truncated(log, "transactions"):
            report.note("retention has taken transactions: what answers these is not checked")

    def index(self) -> None:
        """Where every answer lies: one pass over predictions and dead letters."""
        for record in self._log.read("predictions"):
            try:
                body = contract.prediction(record.value, self._d)
                topic, partition, offset = contract.source(body["source"])
            except Invalid as exc:
                self._report.check("contents", False, record.where, f"no prediction in the form of the contract: {exc}")
                continue
            if topic == self._inputs:
                self._predictions.setdefault((partition, offset), []).append((record.partition, record.offset))
            else:
                self._report.check("answers", False, record.where, f"answers for {topic}, not {self._inputs}")
        for record in self._log.read("dead-letters"):
            self._letter(record)

    def _letter(self, record: Record) -> None:
        names = ("source.topic", "source.partition", "source.offset", "reason", "service")
        topic, partition, offset, reason, service = (
            record.headers.get(n, b"").decode("utf-8", "replace") for n in names
        )
        key = (record.key or b"").decode("utf-8", "replace")
        if not (partition.isdecimal() and offset.isdecimal() and reason and service):
            self._report.check("contents", False, record.where, "a dead letter without source, reason or service")
            return
        self._report.check(
            "contents", key == f"{topic}/{partition}/{offset}", record.where, f"key {key!r} is not its source"
        )
        digest = None if record.value is None else hashlib.sha256(record.value).digest()
        letter = Letter(digest, record._replace(value=None))
        if topic == self._inputs:
            self._letters.setdefault((int(partition), int(offset)), []).append(letter)
        elif f"{topic}/{partition}/{offset}" in self.letters_of_others:
            self._report.check("answers", False, record.where, f"a second dead letter for {key}")
        else:
            self.letters_of_others[f"{topic}/{partition}/{offset}"] = letter

    def walk(self) -> Iterator[Answered]:
        """Every input with one answer. What is wrong with the number of answers is said on the way."""
        group = self._log.committed("scorer", "transactions")
        for record in self._log.read("transactions"):
            where = (record.partition, record.offset)
            predictions, letters = self._predictions.pop(where, []), self._letters.pop(where, [])
            self._report.inputs += 1
            if not predictions and not letters:
                self._unanswered(record, group.get(record.partition, 0))
                continue
            if len(predictions) + len(letters) > 1:
                self._report.doubled += 1
                places = [f"predictions/{p}/{o}" for p, o in predictions] + [x.record.where for x in letters]
                what = f"has {len(predictions)} predictions and {len(letters)} dead letters: {', '.join(places[:4])}"
                self._report.check("answers", False, record.where, what)
            else:
                self._report.check("answers", True, record.where, "")
            yield self._answered(record, predictions, letters)
        self._left_over()

    def _unanswered(self, record: Record, committed: int) -> None:
        if record.offset < committed:
            self._report.lost += 1
            why = f"neither prediction nor dead letter, and its group has committed up to {committed}"
            self._report.check("answers", False, record.where, why)
        elif self._complete and settled(self._log, "transactions", record):
            self._report.lost += 1
            self._report.check("answers", False, record.where, "not scored (--complete)")
        else:
            self._report.count("inputs not yet scored")

    def _answered(self, record: Record, predictions: list[Where], letters: list[Letter]) -> Answered:
        try:
            batch, fault = contract.batch(record.value, self._d), None
        except Invalid as exc:
            batch, fault = None, exc
        prediction = self._log.get("predictions", *predictions[0]) if predictions else None
        body = None if prediction is None else contract.json_object(prediction.value)  # index() has checked its form
        if prediction is not None and body is not None:
            same = _differs(record, batch, fault, prediction, body)
            self._report.check("contents", not same, prediction.where, same)
        for letter in letters:
            kept = _kept(record)
            same_bytes = letter.digest == kept
            self._report.check("contents", same_bytes, letter.record.where, f"not the bytes of {record.where}")
        return Answered(record, batch, prediction, body, letters[0] if letters else None)

    def check_events(self, unreadable: list[Record]) -> None:
        """Junk on the events topic: the monitor, its reader, makes a dead letter of it."""
        group = self._log.committed("monitor", "events")
        for record in unreadable:
            told = record.where in self.letters_of_others or record.offset >= group.get(record.partition, 0)
            self._report.check("contents", told, record.where, "an event that is none, without a dead letter")

    def _left_over(self) -> None:
        """Answers to inputs that are not there."""
        topic, spans = self._log.topic("predictions"), self._log.spans("predictions")
        for source, places in self._predictions.items():
            for p, o in places:
                self._orphan(source, f"{topic}/{p}/{o}", known=o < spans[p].settled)
        for source, letters in self._letters.items():
            for letter in letters:
                self._orphan(source, letter.record.where, known=settled(self._log, "dead-letters", letter.record))

    def _orphan(self, source: Where, where: str, *, known: bool) -> None:
        """known: its input must have been there when the ends were taken."""
        span = self._log.spans("transactions").get(source[0])
        if span is not None and source[1] < span.low:
            self._report.count("answers whose input retention has taken")
        elif known or (span is not None and source[1] < span.end):
            why = f"answers for {self._inputs}/{source[0]}/{source[1]}, where there is no record"
            self._report.check("answers", False, where, why)
        else:
            self._report.count("answers to inputs newer than this audit")


def _kept(record: Record) -> bytes | None:
    """Digest of what a dead letter must carry: the bytes, or nothing where there were none or too many."""
    if record.value is None or len(record.value) > contract.MAX_VALUE_BYTES:
        return None
    return hashlib.sha256(record.value).digest()


def _differs(
    record: Record, batch: Input | None, fault: Invalid | None, prediction: Record, body: dict[str, Any]
) -> str:
    """What of a prediction is not its input's; empty where all is."""
    if batch is None:
        return f"scores {record.where}, which is no valid batch ({fault})"
    if body["batch_id"] != batch.batch_id or prediction.key != batch.batch_id.encode():
        return f"batch id {body['batch_id']!r} (key {prediction.key!r}), its input's is {batch.batch_id!r}"
    if body["transaction_ids"] != batch.ids:
        return f"{len(body['transaction_ids'])} transaction ids that are not its input's {len(batch.ids)}"
    if body["created_at"] != batch.created_at:
        return f"created_at {body['created_at']}, its input's is {batch.created_at}"
    if (record.headers.get("lockstep") == b"1") != ("lockstep" in prediction.headers):
        return "header lockstep is not as on its input"
    return ""
