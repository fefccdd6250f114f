"""Rules `probabilities`, `derived` and `versions` of one prediction at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from audit import contract
from audit.adapters import Adapters
from audit.answers import Answered, Where
from audit.contract import Invalid
from audit.history import History
from audit.log import Log, Record, settled
from audit.network import Adapter, Bundle, Floats, probabilities, undone
from audit.report import Report
from audit.rounding import SLACK, TOLERANCE, noise

Bits = npt.NDArray[np.bool_]
CLOSE = 1e-9  # relative, of sums in float64


class Scoring:
    """sample: rows of each batch that are computed again; None: all of them, in float64."""

    def __init__(
        self, log: Log, report: Report, bundle: Bundle, adapters: Adapters, history: History, sample: int | None = None
    ) -> None:
        self._log, self._report, self._bundle, self._adapters, self._history = log, report, bundle, adapters, history
        self._sample, self._n = sample, 0
        self._conflicts: dict[Where, tuple[bytes, str, bool]] = {}  # source: what it says, its place, settled

    def index(self) -> None:
        """Every conflicts record by the input it is about."""
        for record in self._log.read("conflicts"):
            body = contract.json_object(record.value) or {}
            try:
                topic, partition, offset = contract.source(body.get("source"))
                told = _told(
                    body["batch_id"], body["transaction_ids"], np.array(body["features"], np.float64),
                    np.array(body["probability"], np.float64), body["adapter_version"], body["created_at"],
                )  # fmt: skip
            except (Invalid, KeyError, ValueError, TypeError) as exc:
                self._report.check("derived", False, record.where, f"no conflicts record of the contract: {exc!r}")
                continue
            if topic != self._log.topic("transactions") or (partition, offset) in self._conflicts:
                why = f"a second record of the conflicts of {topic}/{partition}/{offset}, or of another pipeline"
                self._report.check("derived", False, record.where, why)
                continue
            self._conflicts[partition, offset] = told, record.where, settled(self._log, "conflicts", record)

    def check(self, answered: Answered) -> None:
        """An input with a prediction."""
        record, batch, body = answered.prediction, answered.batch, answered.body
        where = (answered.record.partition, answered.record.offset)
        if record is None or body is None or batch is None or body["transaction_ids"] != batch.ids:
            return  # said already
        if body["bundle"] != self._bundle.hash:
            why = f"made by bundle {body['bundle'][:12]}, this audit has {self._bundle.hash[:12]}"
            self._report.check("probabilities", False, record.where, why)
            return
        self._version(answered, record, body)
        adapter = self._adapters.get(body["adapter_version"])
        if adapter is None:
            why = f"names adapter {body['adapter_version']}, of which there is no usable record"
            self._report.check("probabilities", False, record.where, why)
        else:
            self._recompute(record, batch.x, body, adapter)
        self._derive(record, batch.x, undone(batch.x, adapter), body, where)

    def left_over(self) -> None:
        """Conflicts of inputs that have no prediction, or one without conflicts."""
        low = {p: span.low for p, span in self._log.spans("transactions").items()}
        for (partition, offset), (_, where, known) in self._conflicts.items():
            if known and offset >= low.get(partition, 0):
                self._report.check("derived", False, where, "no prediction has these conflicts")

    def _version(self, answered: Answered, record: Record, body: dict[str, Any]) -> None:
        version, named = body["adapter_version"], answered.record.headers.get("adapter")
        if named is not None:
            why = f"made by {version}, its input names {named.decode('utf-8', 'replace')}"
            self._report.check("versions", version == named.decode("utf-8", "replace"), record.where, why)
        else:
            served = self._history.serves(version, record.at_ms, answered.record.partition)
            why = f"made by {version}, which was not in force then (nor named by its input)"
            self._report.check("versions", served, record.where, why)
        if (candidate := body.get("candidate_version")) is not None:
            why = f"tries {candidate}, which control did not name as candidate before"
            self._report.check("versions", self._history.tries(str(candidate), record.at_ms), record.where, why)

    def _recompute(self, record: Record, x: Floats, body: dict[str, Any], adapter: Adapter) -> None:
        rows = self._rows(len(x))
        given = {name: _of(body, name)[rows] for name in ("shadow_probability", "probability")}
        adapters = [adapter]
        if body.get("candidate_probability") is not None:
            candidate = self._adapters.get(str(body.get("candidate_version")))
            if candidate is None:
                why = f"tries {body.get('candidate_version')}, of which there is no usable record"
                self._report.check("probabilities", False, record.where, why)
            else:
                adapters.append(candidate)
                given["candidate_probability"] = _of(body, "candidate_probability")[rows]
        found = probabilities(x[rows], self._bundle, adapters)
        worst, at, name_of = 0.0, 0, ""
        for i, ((name, claimed), exact) in enumerate(zip(given.items(), found, strict=True)):
            off = np.abs(claimed - exact)
            if (off > TOLERANCE).any() or not np.isfinite(off).all():
                off = self._forgiven(x[rows], adapters[max(i - 1, 0)], off, shadow=i == 0)
            if (most := float(np.nanmax(np.where(np.isfinite(off), off, np.inf)))) > max(worst, TOLERANCE):
                worst, at, name_of = most, int(rows[int(np.argmax(np.where(np.isfinite(off), off, np.inf)))]), name
        why = f"{name_of} of row {at} ({body['transaction_ids'][at]}) is off by {worst:.1e} under {adapter.version}"
        self._report.check("probabilities", worst <= TOLERANCE, record.where, why)
        self._report.count("rows computed again", len(rows))

    def _forgiven(self, x: Floats, adapter: Adapter, off: Floats, *, shadow: bool) -> Floats:
        """What is left of the differences when float32's own rounding of these rows is taken off."""
        at = np.flatnonzero(~(off <= TOLERANCE))
        rounding = noise(x[at], self._bundle, adapter)[0 if shadow else 1]
        left = off.copy()
        left[at] = np.where(off[at] <= TOLERANCE + SLACK * rounding, 0.0, off[at])
        self._report.count("rows beyond 1e-6, by no more than float32 rounds them", int((left[at] == 0).sum()))
        return left

    def _rows(self, n: int) -> npt.NDArray[np.intp]:
        """All, or a sample that moves from batch to batch; the same at every audit."""
        self._n += 1
        if self._sample is None or n <= self._sample:
            return np.arange(n)
        return np.sort(np.random.default_rng(self._n).choice(n, self._sample, replace=False))

    def _derive(self, record: Record, x: Floats, read: Floats, body: dict[str, Any], where: Where) -> None:
        told = self._conflicts.pop(where, None)
        why = self._underived(x, read, body, told)
        self._report.check("derived", not why, record.where, why)

    def _underived(self, x: Floats, read: Floats, body: dict[str, Any], told: tuple[bytes, str, bool] | None) -> str:
        """read: the rows as the adapter undoes them, which the rule is about; x: as they came."""
        limits, p = self._bundle.manifest["thresholds"], _of(body, "probability")
        rule, flag = np.array(body["rule"], bool), np.array(body["flag"], bool)
        if (rule != (says := self._bundle.rule(read))).any():
            return f"rule of row {int((rule != says).argmax())} is not what the bundle's rule says"
        if (wrong := (flag != (p > limits["flag"])) & ~_tie(p, limits["flag"])).any():
            return f"flag of row {int(wrong.argmax())} is not p > {limits['flag']}"
        tie = _tie(p, limits["conflict"])
        at = rule & (p < limits["conflict"])
        if not int((at & ~tie).sum()) <= body["conflicts"] <= int((at | (rule & tie)).sum()):
            return f"{body['conflicts']} conflicts, rule and probabilities give {int(at.sum())}"
        wide = x.astype(np.float64)
        for name, sums in (("feature_sums", wide.sum(axis=0)), ("feature_squares", (wide**2).sum(axis=0))):
            scale = np.abs(wide).sum(axis=0) if name == "feature_sums" else sums
            if (np.abs(np.array(body[name], np.float64) - sums) > CLOSE * (scale + 1e-300)).any():
                return f"{name} are not the sums over its rows"
        if (told is not None) != (body["conflicts"] > 0):
            return f"{body['conflicts']} conflicts, and {'a' if told else 'no'} conflicts record"
        if told is None or (at & tie).any() or (rule & tie).any():
            return ""
        ids = [body["transaction_ids"][i] for i in np.flatnonzero(at)]
        if told[0] != _told(body["batch_id"], ids, wide[at], p[at], body["adapter_version"], body["created_at"]):
            return f"the conflicts record {told[1]} does not hold its {len(ids)} conflicts with their rows"
        return ""


def _of(body: dict[str, Any], name: str) -> Floats:
    return np.array(body[name], np.float64)


def _tie(p: Floats, limit: float) -> Bits:
    """Where p, a float32, is the threshold itself rounded to one: compared in float32 or float64, both are right."""
    out: Bits = p.astype(np.float32) == np.float32(limit)
    return out


def _told(batch_id: str, ids: list[str], x: Floats, p: Floats, version: str, created_at: str) -> bytes:
    """Digest of what a conflicts record says, its numbers as float32."""
    found = hashlib.blake2b(digest_size=16)
    for text in (batch_id, *ids, version, created_at):
        found.update(text.encode("utf-8", "surrogatepass") + b"\0")
    found.update((x.astype(np.float32) + np.float32(0)).tobytes())
    found.update((p.astype(np.float32) + np.float32(0)).tobytes())
    return found.digest()
