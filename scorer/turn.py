"""One turn, pure: the records taken and the adapters in use to everything that is published for them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from scorer.catalog import View
from scorer.decode import MAX_ID_CHARS, Decoder
from scorer.says import SERVICE
from scorer.score import Job, Scored, score
from shared.bundle import Bundle
from shared.errors import Refused
from shared.forward import Network
from shared.kafka import Out, Taken
from shared.notices import dead_letter
from shared.topics import Name

TOGETHER = 64  # messages for one pass: what is decoded is still in the cache when it is scored
_LOCKSTEP = {"lockstep": b"1"}
_NO_HEADERS: dict[str, bytes] = {}


class Targets(NamedTuple):
    """Topic names in full, and how many partitions predictions and conflicts both have."""

    names: Mapping[Name, str]
    partitions: int


def named_version(record: Taken) -> str | None:
    """The adapter that the record's header asks for. Raises Refused."""
    if not record.headers or (named := record.headers.get("adapter")) is None:
        return None
    version = named.decode("utf-8", "replace")
    if not 1 <= len(version) <= MAX_ID_CHARS:
        raise Refused(f"a version has 1 to {MAX_ID_CHARS} characters", "header:adapter")
    return version


def awaited(records: Sequence[Taken], view: View, given_up: Container[str]) -> set[str]:
    """Versions that records ask for and that may yet come."""
    wanted = set()
    for record in records:
        try:
            version = named_version(record)
        except Refused:
            continue  # answered as such in its place
        if version is not None and version not in view.loaded and version not in view.refused:
            wanted.add(version)
    return {version for version in wanted if version not in given_up}


def answer(
    records: Sequence[Taken], view: View, decoder: Decoder, bundle: Bundle, network: Network, to: Targets
) -> list[Out]:
    """For each record one prediction (and its conflicts) or one dead letter, in the order of the records; all in one
    pass."""
    jobs: list[Job] = []
    faults: dict[int, Refused] = {}
    for i, record in enumerate(records):
        try:
            jobs.append(_job(record, view, decoder))
        except Refused as refused:
            faults[i] = refused
    scored = iter(zip(jobs, score(jobs, bundle, network, view.candidate), strict=True))
    outs = []
    for i, record in enumerate(records):
        if (fault := faults.get(i)) is not None:
            outs.append(dead_letter(to.names["dead-letters"], record, fault, SERVICE))
            continue
        job, result = next(scored)
        if isinstance(result, Refused):
            outs.append(dead_letter(to.names["dead-letters"], record, result, SERVICE))
        else:
            outs += _published(record, job.batch.batch_id, result, to)
    return outs


def _job(record: Taken, view: View, decoder: Decoder) -> Job:
    version = named_version(record)
    adapter = view.active if version is None else view.loaded.get(version)
    batch = decoder.decode(record.value)
    if adapter is None:
        reason = view.refused.get(version or "", "not published, or not in time")
        raise Refused(f"adapter {version}: {reason}", "header:adapter")
    return Job(batch, {"topic": record.topic, "partition": record.partition, "offset": record.offset}, adapter)


def _published(record: Taken, key: str, result: Scored, to: Targets) -> list[Out]:
    partition = record.partition if record.partition < to.partitions else None
    headers = _LOCKSTEP if record.headers and record.headers.get("lockstep") == b"1" else _NO_HEADERS
    outs = [Out(to.names["predictions"], key, result.prediction, headers, partition)]
    if result.conflicts is not None:
        outs.append(Out(to.names["conflicts"], key, result.conflicts, headers, partition))
    return outs
