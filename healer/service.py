"""The healer's loop: one request, its rows, the heal, and its outcome in the transaction of its offset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Literal

from healer import says
from healer.answering import Healer
from healer.stale import WAITING_MAX, plan
from shared.bundle import Bundle
from shared.crash import crash_between
from shared.errors import Fatal, Rewind, TimedOut
from shared.kafka import Out, Session
from shared.notices import event_out, lifecycle
from shared.settings import HealerSettings
from shared.telemetry import Heartbeat, epoch_ms, get_logger, wall_clock
from shared.topics import group_name, topic_name

POLL_S = 0.5  # longest wait for a request before looking at stop
TRIES = 10  # of one request, before a fresh process has to try


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
