"""From one heal request to its one answer, by policy and purpose."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from healer import says
from healer.guarded import diagnosed, learned
from healer.knowledge import Knowledge, knowledge_of
from healer.reference import LEARNING_RATE, STEPS, heal
from healer.registry import Registry
from healer.rows import Entry, RowReader, Rows
from shared.adapters import Adapter
from shared.bundle import Bundle
from shared.crash import crash_point
from shared.errors import Refused
from shared.kafka import Out, Taken
from shared.notices import dead_letter
from shared.records import HealRequest, decode
from shared.settings import HealerSettings
from shared.signing import Seal
from shared.telemetry import get_logger
from shared.topics import topic_name

WARM_FEATURES = 100  # up to this many, what diagnosis needs is worked out at start: about 0.1 s a feature


class Answer(NamedTuple):
    """The one outcome of a request: what to publish, and the adapters among it."""

    outputs: list[Out]
    adapters: list[Adapter]


class RowSource(Protocol):
    """Where the rows of a request are."""

    def read(self, request: HealRequest) -> Rows: ...
    def read_entries(self, request: HealRequest) -> list[Entry]: ...


class Versions(Protocol):
    """Published adapters by version."""

    def get(self, version: str) -> Adapter: ...
    def next_versions(self, count: int) -> list[str]: ...


class Answering:
    """From a request's record to its answer, wherever rows and adapters are kept. knowledge: of the bundle, the reason
    why there is none, or None: worked out when it is asked for."""

    def __init__(
        self, bundle: Bundle, prefix: str, rows: RowSource, versions: Versions, knowledge: Knowledge | Refused | None
    ) -> None:
        self._bundle, self._prefix, self._log = bundle, prefix, get_logger("healer")
        self._rows, self._versions, self._known = rows, versions, knowledge

    def answer(self, record: Taken, stale: Refused | None = None) -> Answer:
        """Adapters and heal-finished, or heal-failed with the reason, or a dead letter. stale: the reason why there is
        no fit any more. Raises TimedOut, Fatal."""
        try:
            request = decode(HealRequest, record.value)
        except Refused as exc:
            self._log.warning("dead_letter", offset=record.offset, reason=str(exc))
            return Answer([dead_letter(topic_name("dead-letters", self._prefix), record, exc, says.SERVICE)], [])
        try:
            if stale is not None:
                raise stale
            return self._heal(request)
        except Refused as exc:
            self._log.warning("heal_failed", request=request.request_id, reason=str(exc))
            return Answer([says.heal_failed(request, exc, self._prefix)], [])

    def _heal(self, request: HealRequest) -> Answer:
        if request.bundle != self._bundle.hash:
            raise Refused(f"asked for {request.bundle[:12]}, this healer has {self._bundle.hash[:12]}", "bundle")
        return self._reference(request) if request.policy == "reference" else self._guarded(request)

    def _guarded(self, request: HealRequest) -> Answer:
        began = time.perf_counter()
        bundle, version = self._bundle, self._versions.next_versions(1)[0]
        base = self._versions.get(request.base_version)
        if request.purpose == "diagnose":
            knowledge = self._knowledge()
            crash_point("healer.before-fetch")
            outcome = diagnosed(bundle, knowledge, request, self._rows.read_entries(request), base, version)
        else:
            active = self._versions.get(active_version(request))
            crash_point("healer.before-fetch")
            outcome = learned(bundle, request, self._rows.read_entries(request), base, active, version)
        crash_point("healer.after-fit")
        took_s = time.perf_counter() - began
        self._log.info(outcome.kind, request=request.request_id, purpose=request.purpose, took_s=round(took_s, 4),
                       message=outcome.message)  # fmt: skip
        adapters = [] if outcome.adapter is None else [outcome.adapter]
        return Answer(says.answered(request, outcome, took_s, self._prefix), adapters)

    def _knowledge(self) -> Knowledge:
        """Raises Refused where this bundle cannot be diagnosed."""
        if self._known is None:
            self._known = known(self._bundle)
        if isinstance(self._known, Refused):
            raise self._known
        return self._known

    def _reference(self, request: HealRequest) -> Answer:
        began = time.perf_counter()
        base = self._versions.get(request.base_version)
        crash_point("healer.before-fetch")
        rows = self._rows.read(request)
        steps = request.parameters.get("heal_steps", STEPS)
        if not float(steps).is_integer():
            raise Refused(f"{steps:g} is no whole number", "parameters.heal_steps")
        healed = heal(
            self._bundle, base, rows.x, rows.labels, int(steps), request.parameters.get("heal_lr", LEARNING_RATE)
        )
        crash_point("healer.after-fit")
        pre_version, post_version = self._versions.next_versions(2)
        pre = msgspec.structs.replace(base, version=pre_version, parent=base.version)
        post = msgspec.structs.replace(healed.adapter, version=post_version, parent=pre_version)
        how = healed.summary
        judged = {"accuracy": how.accuracy_before, "f1": how.f1_before, "rows": how.rows, "labelled": how.labelled}
        took_s = time.perf_counter() - began
        self._log.info(
            "healed", request=request.request_id, version=post_version, rows=how.rows, took_s=round(took_s, 4)
        )
        return Answer(
            [
                says.adapter(pre, request, "pre-heal", judged, self._prefix),
                says.adapter(post, request, "post-heal", msgspec.structs.asdict(how), self._prefix),
                says.heal_finished(request, pre_version, post_version, how, took_s, self._prefix),
            ],
            [pre, post],
        )


class Healer(Answering):
    """The same over Kafka; holds the clients that this takes."""

    def __init__(self, settings: HealerSettings, kafka: Mapping[str, Any], bundle: Bundle, name: str) -> None:
        self.adapters = topic_name("adapters", settings.prefix)
        self.seal = Seal.of(settings)
        self._reader = RowReader(
            kafka,
            settings.prefix,
            len(bundle.features),
            name=name,
            budget_s=settings.fetch_budget_s,
            rows_max=settings.rows_max,
        )
        self.registry = Registry(
            kafka, self.adapters, bundle, name=name, budget_s=settings.commit_budget_s, seal=self.seal
        )
        # A diagnosis of a very wide table waits for the first request: most such healers never get one.
        knowledge = known(bundle) if len(bundle.features) <= WARM_FEATURES else None
        super().__init__(bundle, settings.prefix, self._reader, self.registry, knowledge)

    def close(self) -> None:
        """Close the clients."""
        self._reader.close()
        self.registry.close()


def known(bundle: Bundle) -> Knowledge | Refused:
    """What diagnosis needs, or the reason why this bundle cannot be diagnosed; it can still be healed as published."""
    try:
        return knowledge_of(bundle)
    except Refused as exc:
        return exc


def active_version(request: HealRequest) -> str:
    """What a learner is compared with: parameters.active_version_number N is vN; the base where there is none. Raises
    Refused."""
    number = request.parameters.get("active_version_number")
    if number is None:
        return request.base_version
    if not (float(number).is_integer() and 1 <= number <= 1e15):
        raise Refused(f"{number:g} is no version", "parameters.active_version_number")
    return f"v{int(number)}"
