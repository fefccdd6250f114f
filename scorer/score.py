"""Batches and adapters to what is published about them. Pure: the same batch and adapter give the same bytes,
whatever shares the pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from scorer.decode import Batch
from shared.bundle import Array, Bundle
from shared.errors import Refused
from shared.forward import Folded, Network, probabilities
from shared.topics import MAX_RECORD_BYTES

ROOM = 4_096  # what the record's key, headers and framing may take of MAX_RECORD_BYTES
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class Job(NamedTuple):
    """A batch, where it was read (the fields of records.Source), and the adapter that it must be scored by."""

    batch: Batch
    source: dict[str, str | int]
    adapter: Folded


class Scored(NamedTuple):
    """Values for the predictions topic and, where the rule and the model disagree, the conflicts topic."""

    prediction: bytes
    conflicts: bytes | None


class _Columns(NamedTuple):
    """Per row of several batches (n,), per batch (b, d), and per conflict (c,)."""

    shadow: Array
    healed: Array
    candidate: Array | None
    rule: npt.NDArray[np.uint8]
    flag: npt.NDArray[np.uint8]
    at: list[int]  # (c,): the rows in conflict
    at_x: Array  # (c, d)
    at_healed: Array
    sums: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    bad: npt.NDArray[np.bool_] | None  # rows without a finite answer; None where there are none


def score(jobs: Sequence[Job], bundle: Bundle, network: Network, candidate: Folded | None) -> list[Scored | Refused]:
    """One entry per job, in order; Refused where the network's answer is no finite number or too large to publish.
    All batches of one adapter share one forward pass, and the backbone's pass serves shadow and candidate too."""
    by_version: dict[str, list[int]] = {}
    for i, job in enumerate(jobs):
        by_version.setdefault(job.adapter.version, []).append(i)
    answers: list[Scored | Refused | None] = [None] * len(jobs)
    for members in by_version.values():
        group = [jobs[i] for i in members]
        for i, answer in zip(members, _score_group(group, bundle, network, candidate), strict=True):
            answers[i] = answer
    return [a for a in answers if a is not None]


def _score_group(
    jobs: Sequence[Job], bundle: Bundle, network: Network, candidate: Folded | None
) -> list[Scored | Refused]:
    edges = np.cumsum([0, *(len(job.batch.x) for job in jobs)])
    x = np.concatenate([job.batch.x for job in jobs])
    columns = _columns(x, edges[:-1], jobs[0].adapter, bundle, network, candidate)
    rows = itertools.pairwise(edges.tolist())
    conflicts = itertools.pairwise(np.searchsorted(columns.at, edges).tolist())
    return [
        _answer(job, b, slice(*row), slice(*conflict), columns, bundle.hash, candidate)
        for b, (job, row, conflict) in enumerate(zip(jobs, rows, conflicts, strict=True))
    ]


def _columns(
    x: Array, starts: npt.NDArray[np.intp], adapter: Folded, bundle: Bundle, network: Network, candidate: Folded | None
) -> _Columns:
    adapters = [adapter] if candidate is None else [adapter, candidate]
    shadow, healed, *tried = probabilities(x, network, adapters)
    thresholds = bundle.manifest.thresholds
    rule = bundle.rule_says_fraud(adapter.undo(x))  # a rule that reads pence as pounds would be stale
    at = np.flatnonzero(rule & (healed < thresholds.conflict))
    bad = ~(np.isfinite(healed) & np.isfinite(shadow))
    wide = x.astype(np.float64)  # a float32 squared may not fit into a float32
    return _Columns(
        shadow, healed, tried[0] if tried else None, rule.view(np.uint8), (healed > thresholds.flag).view(np.uint8),
        at.tolist(), x[at], healed[at],
        np.add.reduceat(wide, starts), np.add.reduceat(np.square(wide, out=wide), starts),
        bad if bad.any() else None,
    )  # fmt: skip


def _answer(
    job: Job, b: int, rows: slice, conflicts: slice, of: _Columns, bundle: str, candidate: Folded | None
) -> Scored | Refused:
    """Encode batch b, which is these rows and these conflicts of the columns."""
    if of.bad is not None and of.bad[rows].any():
        return Refused("the network's answer to this row is not a finite number", f"features[{of.bad[rows].argmax()}]")
    batch, count = job.batch, conflicts.stop - conflicts.start
    body = {
        "batch_id": batch.batch_id,
        "transaction_ids": batch.ids,
        "probability": of.healed[rows],
        "shadow_probability": of.shadow[rows],
        "adapter_version": job.adapter.version,
        "bundle": bundle,
        "source": job.source,
        "created_at": batch.created_at,
        "rule": of.rule[rows],
        "flag": of.flag[rows],
        "conflicts": count,
        "feature_sums": of.sums[b],
        "feature_squares": of.squares[b],
    }
    if candidate is not None and of.candidate is not None and np.isfinite(of.candidate[rows]).all():
        body |= {"candidate_probability": of.candidate[rows], "candidate_version": candidate.version}
    prediction = orjson.dumps(body, option=_OPTIONS)
    conflicting = _conflicts(job, rows.start, conflicts, of) if count else None
    for name, value in (("prediction", prediction), ("conflicts", conflicting)):
        if value is not None and len(value) > MAX_RECORD_BYTES - ROOM:
            return Refused(f"its {name} record would take {len(value)} bytes, more than a topic holds; send fewer rows")
    return Scored(prediction, conflicting)


def _conflicts(job: Job, first: int, conflicts: slice, of: _Columns) -> bytes:
    """Of the batch whose rows begin at the first: these of the conflicts."""
    ids = job.batch.ids
    body = {
        "batch_id": job.batch.batch_id,
        "transaction_ids": [ids[row - first] for row in of.at[conflicts]],
        "features": of.at_x[conflicts],
        "probability": of.at_healed[conflicts],
        "adapter_version": job.adapter.version,
        "source": job.source,
        "created_at": job.batch.created_at,
    }
    return orjson.dumps(body, option=_OPTIONS)
