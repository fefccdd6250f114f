"""The healer's loop: one request, its rows, the heal, and its outcome in the transaction of its offset."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Literal, NamedTuple

import msgspec

from healer import says
from healer.reference import LEARNING_RATE, STEPS, heal
from healer.registry import Registry
from healer.rows import RowReader
from healer.stale import WAITING_MAX, plan
from shared.adapters import Adapter
from shared.bundle import Bundle
from shared.crash import crash_between, crash_point
from shared.errors import Fatal, Refused, Rewind, TimedOut
from shared.kafka import Out, Session, Taken
from shared.notices import dead_letter, event_out, lifecycle
from shared.records import HealRequest, decode
from shared.settings import HealerSettings
from shared.signing import Seal
from shared.telemetry import Heartbeat, epoch_ms, get_logger, wall_clock
from shared.topics import group_name, topic_name

POLL_S = 0.5  # longest wait for a request before looking at stop
TRIES = 10  # of one request, before a fresh process has to try


class Answer(NamedTuple):
    """The one outcome of a request: what to publish, and the adapters among it."""

    outputs: list[Out]
    adapters: list[Adapter]


def run(settings: HealerSettings, kafka: Mapping[str, Any], bundle: Bundle, stop: Callable[[], bool]) -> None:
    """Heal until stop() is true. Raises Fatal, Fenced, OperatorError.

    Every request has exactly one outcome, whatever is killed and whenever: its adapters, its event and its offset
    commit together or not at all. So nothing needs to look for an outcome that is there already, and what was not
    committed is healed again, to the same bytes under the same numbers.
    """
    log, heartbeat = get_logger("healer"), Heartbeat()
    name = f"healer-{settings.slot}"

    def lifecycle_out(kind: Literal["service-started", "service-stopped"]) -> Out:
        event = lifecycle(kind, says.SERVICE, wall_clock(), slot=settings.slot, bundle=bundle.hash)
        return event_out(topic_name("events", settings.prefix), event)

    session = Session(
        kafka,
        name=name,
        group=group_name("healer", settings.prefix),
        topics=[topic_name("heal-requests", settings.prefix)],
        budget_s=settings.commit_budget_s,
        session_timeout_ms=settings.session_timeout_ms,
        transaction_timeout_ms=settings.transaction_timeout_ms,
    )
    with closing(session), closing(Healer(settings, kafka, bundle, name)) as healer:
        unsaid = [lifecycle_out("service-started")]
        known_moves: int | None = None  # session.moves when the registry was last known to be complete
        failures = 0
        log.info("started", slot=settings.slot, bundle=bundle.hash[:12])
        while not stop():
            heartbeat.beat()
            healer.registry.poll()
            try:
                answers = []
                turn = plan(
                    session.take(WAITING_MAX, 0 if unsaid else POLL_S), epoch_ms(), settings.stale_s, bundle.hash
                )
                session.put_back(turn.later)
                for record, stale in turn.now:
                    # Numbers come from what is committed. While the partition of the requests is ours, nobody else
                    # can commit adapters with its offsets, and ours are known; after it moved, or a transaction of
                    # ours ended otherwise than planned, the topic has to be read to its end.
                    if known_moves != session.moves:
                        healer.registry.refresh()
                        known_moves = session.moves
                    answers.append(healer.answer(record, stale))
                if unsaid or answers:
                    outputs = [*unsaid, *(out for answer in answers for out in answer.outputs)]
                    signed = [healer.seal.sign(out) for out in outputs]
                    session.commit(crash_between("healer.between-adapter-and-event", healer.adapters, signed))
                unsaid = []
                for answer in answers:
                    healer.registry.add(answer.adapters)
                failures = 0
            except (Rewind, TimedOut) as exc:
                failures += 1
                if failures == TRIES:
                    raise Fatal(f"{TRIES} tries in a row came to nothing, the last: {exc}") from exc
                log.warning("rewound", reason=str(exc), tries=failures)
                session.rewind()  # a time-out may have come before the commit
                known_moves = None
        try:
            stopped = lifecycle_out("service-stopped")
            session.commit([stopped])
            log.info("stopped", slot=settings.slot)
        except (Rewind, TimedOut) as exc:
            log.warning("stopped_unsaid", reason=str(exc))


class Healer:
    """From a request's record to its answer; holds the clients that this takes."""

    def __init__(self, settings: HealerSettings, kafka: Mapping[str, Any], bundle: Bundle, name: str) -> None:
        self._bundle, self._prefix, self._log = bundle, settings.prefix, get_logger("healer")
        self._rows = RowReader(
            kafka,
            settings.prefix,
            len(bundle.features),
            name=name,
            budget_s=settings.fetch_budget_s,
            rows_max=settings.rows_max,
        )
        self.adapters = topic_name("adapters", settings.prefix)
        self.seal = Seal.of(settings)
        self.registry = Registry(
            kafka, self.adapters, bundle, name=name, budget_s=settings.commit_budget_s, seal=self.seal
        )

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

    def close(self) -> None:
        """Close the clients."""
        self._rows.close()
        self.registry.close()

    def _heal(self, request: HealRequest) -> Answer:
        began = time.perf_counter()
        if request.policy != "reference":
            raise Refused(f"this healer does not know the policy {request.policy}", "policy")
        if request.bundle != self._bundle.hash:
            raise Refused(f"asked for {request.bundle[:12]}, this healer has {self._bundle.hash[:12]}", "bundle")
        base = self.registry.get(request.base_version)
        crash_point("healer.before-fetch")
        rows = self._rows.read(request)
        steps = request.parameters.get("heal_steps", STEPS)
        if not float(steps).is_integer():
            raise Refused(f"{steps:g} is no whole number", "parameters.heal_steps")
        healed = heal(
            self._bundle, base, rows.x, rows.labels, int(steps), request.parameters.get("heal_lr", LEARNING_RATE)
        )
        crash_point("healer.after-fit")
        pre_version, post_version = self.registry.next_versions(2)
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
