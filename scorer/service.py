"""The scorer's loop: take, score, and commit predictions, conflicts, dead letters, events and offsets together.

The caller sets OPENBLAS_NUM_THREADS=1 before NumPy is loaded: matrices of this size gain nothing from a second thread,
and lose much when the machine's cores are busy.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

from scorer import says
from scorer.catalog import Catalog, View
from scorer.decode import Decoder
from scorer.slot import Slot
from scorer.turn import TOGETHER, Targets, answer, awaited
from shared.bundle import Bundle
from shared.errors import Fatal, Fenced, OperatorError, Rewind, TimedOut
from shared.forward import Network
from shared.kafka import Deadline, Out, Session, Taken, list_topics, topic_operations
from shared.notices import event_out, lifecycle
from shared.settings import ScorerSettings
from shared.signing import Seal
from shared.telemetry import Heartbeat, get_logger, wall_clock
from shared.topics import Name, group_name, topic_name

REWINDS_MAX = 10  # in a row; more is no passing trouble
GIVEN_UP_MAX = 1_000
OPEN_SHARE = 0.25  # of the transaction's time-out that a turn may spend on scoring
TOPICS_WITHIN_S = 10.0
_TOPICS: tuple[Name, ...] = (
    "transactions", "predictions", "conflicts", "dead-letters", "events", "adapters", "control",
)  # fmt: skip
_log = get_logger(says.SERVICE)


def run(settings: ScorerSettings, kafka: Mapping[str, Any], bundle: Bundle, stop: Callable[[], bool]) -> None:
    """Score until stop(); it is asked at least every poll_s seconds. What is taken but not committed then is taken
    again by whoever comes next.

    Raises OperatorError (topics), Fatal, and Fenced when another scorer was started under the same slot.
    """
    network = Network.of(bundle)
    to = _targets(settings.prefix, kafka)
    name = f"{says.SERVICE}-{settings.slot}"
    with closing(
        Slot(kafka, settings.prefix, f"{name}-adapters", Catalog(bundle, network, seal=Seal.of(settings)))
    ) as slot:
        if not slot.start(stop):
            return
        try:
            session = Session(
                kafka, name=name, group=group_name(says.SERVICE, settings.prefix), topics=[to.names["transactions"]],
                budget_s=settings.commit_budget_s, session_timeout_ms=settings.session_timeout_ms,
                transaction_timeout_ms=settings.transaction_timeout_ms,
            )  # fmt: skip
            with closing(session):
                _Loop(settings, bundle, network, to, slot, session).until(stop)
        except Fenced:
            _log.error("fenced", message=f"another scorer runs as slot {settings.slot}; give each its own (--slot)")
            raise


class _Loop:
    def __init__(
        self, settings: ScorerSettings, bundle: Bundle, network: Network, to: Targets, slot: Slot, session: Session
    ) -> None:
        self._settings, self._bundle, self._network, self._to = settings, bundle, network, to
        self._slot, self._session = slot, session
        self._decoder, self._heart = Decoder(len(bundle.features)), Heartbeat()
        self._dead = 0  # letters of this turn
        self._events: list[Out] = []  # to be said with the next commit
        self._given_up: dict[str, None] = {}  # versions that were waited for in vain: not waited for again

    def until(self, stop: Callable[[], bool]) -> None:
        """Turn after turn; one that was aborted is taken again from the committed offsets."""
        self._events.append(self._lifecycle("service-started"))
        gc.collect()
        gc.freeze()  # what lives for ever is not looked at again: +28% and more
        rewinds = 0
        while not stop():
            try:
                self._turn(stop)
                rewinds = 0
            except (Rewind, TimedOut) as exc:
                rewinds += 1
                _log.warning("rewind", reason=str(exc), in_a_row=rewinds)
                if rewinds >= REWINDS_MAX:
                    raise Fatal(f"{rewinds} transactions in a row were aborted, the last one: {exc}") from exc
            self._heart.beat()
        try:
            self._session.commit([*self._events, self._lifecycle("service-stopped")])
        except (Rewind, TimedOut) as exc:
            _log.warning("stopped_unsaid", reason=str(exc))

    def _lifecycle(self, kind: Literal["service-started", "service-stopped"]) -> Out:
        event = lifecycle(kind, says.SERVICE, wall_clock(), slot=self._settings.slot, bundle=self._bundle.hash)
        return event_out(self._to.names["events"], event)

    def _turn(self, stop: Callable[[], bool]) -> None:
        records = self._session.take(self._settings.turn_max, self._settings.poll_s)
        began = time.monotonic()
        if not self._adapters_there(records, stop):
            self._session.rewind()  # told to stop while waiting: nothing of this turn is answered
            return
        view = self._slot.view()
        at, events, slot = wall_clock(), self._to.names["events"], self._settings.slot
        self._events += [says.refused(events, at, slot, problem) for problem in self._slot.problems()]
        if not records and not self._events:
            return
        self._dead = 0
        self._session.commit(itertools.chain(self._answers(records, view), self._events))
        self._events.clear()
        if self._dead:
            _log.warning("refused", records=self._dead, of=len(records))
        took_s = time.monotonic() - began
        _log.debug("turn", records=len(records), dead=self._dead, adapter=view.active.version, took_s=took_s)

    def _answers(self, records: Sequence[Taken], view: View) -> Iterator[Out]:
        """Pass by pass, with the transaction open: Kafka's client compresses and sends what is answered while the rest
        is scored. What is not answered in good time before the transaction would time out is left to the next turn."""
        until = time.monotonic() + self._settings.transaction_timeout_ms / 1_000 * OPEN_SHARE
        for first in range(0, len(records), TOGETHER):
            if first and time.monotonic() > until:
                return self._session.put_back(records[first:])
            outs = answer(records[first : first + TOGETHER], view, self._decoder, self._bundle, self._network, self._to)
            self._dead += sum(out.topic == self._to.names["dead-letters"] for out in outs)
            yield from outs

    def _adapters_there(self, records: Sequence[Taken], stop: Callable[[], bool]) -> bool:
        """Wait for adapters that these records name, all within one adapter_wait_s: far below max.poll.interval.ms, so
        the group keeps us. False when told to stop."""
        versions = awaited(records, self._slot.view(), given_up=())
        if not versions:
            return True
        until = time.monotonic() + self._settings.adapter_wait_s

        def stop_waiting() -> bool:
            self._heart.beat()
            return stop()

        for version in sorted(versions):
            waited_before = version in self._given_up  # if it has come since, it is taken
            if not self._slot.wait_for(version, 0.0 if waited_before else until, stop_waiting):
                return False
        for version in awaited(records, self._slot.view(), self._given_up):
            self._given_up[version] = None
            if len(self._given_up) > GIVEN_UP_MAX:
                del self._given_up[next(iter(self._given_up))]
        return True


def _targets(prefix: str, kafka: Mapping[str, Any]) -> Targets:
    """Raises OperatorError when a topic is missing and stays so for some seconds, or is not for us to see."""
    names = {name: topic_name(name, prefix) for name in _TOPICS}
    deadline = Deadline(TOPICS_WITHIN_S)
    while missing := sorted(set(names.values()) - (found := list_topics(kafka)).keys()):
        if hidden := sorted(name for name, allowed in topic_operations(kafka, missing).items() if not allowed):
            raise OperatorError(f"not allowed: Read or Write on topic {', '.join(hidden)}; see `selfheal acl scorer`")
        if deadline.passed():
            raise OperatorError(f"no topic {', '.join(missing)}; `selfheal topics` creates the topics of a pipeline")
        time.sleep(0.2)
    return Targets(names, min(found[names["predictions"]], found[names["conflicts"]]))
