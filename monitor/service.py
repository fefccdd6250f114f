"""The monitor's loop: take records, fold them, commit decisions, changed state and offsets together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from monitor import says
from monitor.decide import Input, fold, stood
from monitor.fetching import RowFetcher
from monitor.learning import without_candidate
from monitor.outcomes import expired, policy_changed
from monitor.pacing import waiting
from monitor.setup import Decision, Setup
from monitor.state import Core, Heal, State, load
from monitor.thinning import Look, next_share
from monitor.thresholds import read_thresholds
from shared.bundle import Array, Bundle
from shared.crash import crash_between, crash_point
from shared.errors import Fatal, Fenced, Refused, Rewind, TimedOut
from shared.kafka import Deadline, Out, Session, Taken, read_all
from shared.notices import dead_letter, lifecycle
from shared.records import FIRST_VERSION, Control, Source, encode
from shared.settings import MonitorSettings
from shared.signing import Seal
from shared.telemetry import Heartbeat, get_logger, wall_clock
from shared.topics import Name, group_name, topic_name

INPUTS: tuple[Name, ...] = ("predictions", "labels", "events")
THIN_LOOK_S = 2.0
FETCH_TRIES = 4  # of the rows of one turn, before a fresh process has to try
CHUNK_BYTES = 4 * 1024 * 1024  # of predictions whose rows are held at once: 70 batches of 1,000 rows


def run(settings: MonitorSettings, kafka: Mapping[str, Any], bundle: Bundle, stop: Callable[[], bool]) -> None:
    """Judge and decide until stop(); it is asked at least every poll_s seconds.

    Raises OperatorError (thresholds, topics, a state of another program version), Fatal, and Fenced when a second
    monitor of the same prefix was started: the newer one goes on from the state that this one committed.
    """
    log = get_logger(says.SERVICE)
    setup = Setup.of(bundle, settings, read_thresholds(settings.thresholds))
    group = group_name(says.SERVICE, settings.prefix)
    # Opened before the state is read: it ends what a predecessor left open and shuts out one that is still running.
    session = Session(
        kafka, name=says.SERVICE, group=group, topics=[topic_name(n, settings.prefix) for n in INPUTS],
        budget_s=settings.commit_budget_s, session_timeout_ms=settings.session_timeout_ms,
        transaction_timeout_ms=settings.transaction_timeout_ms,
    )  # fmt: skip
    transactions = topic_name("transactions", settings.prefix)
    rows: RowFetcher | None = None
    try:
        if setup.guarding is not None:
            rows = RowFetcher(kafka, transactions, len(bundle.features), budget_s=settings.commit_budget_s)
        loop = _Loop(settings, kafka, setup, session, rows)
        loop.until(stop)
    except Fenced:
        log.error("fenced", message=f"another monitor took over {group}; only one decides, so this one ends")
        raise
    finally:
        session.close()
        if rows is not None:
            rows.close()


class _Loop:
    """state: as the topic holds it, between two turns."""

    def __init__(
        self, settings: MonitorSettings, kafka: Mapping[str, Any], setup: Setup, session: Session,
        rows: RowFetcher | None,
    ) -> None:  # fmt: skip
        self._settings, self._kafka, self._setup, self._session = settings, kafka, setup, session
        self._rows, self._late = rows, 0  # late: turns in a row whose rows could not be read in time
        self._names = {topic_name(n, settings.prefix): n for n in INPUTS}
        self._topics: dict[Name, str] = {
            n: topic_name(n, settings.prefix)
            for n in ("metrics", "events", "heal-requests", "control", "state", "dead-letters")
        }
        self._log, self._heart, self._seal = get_logger(says.SERVICE), Heartbeat(), Seal.of(settings)
        self._state: State | None = None
        self._committed = 0  # core.turn of the newest transaction of this process
        self._look, self._next_look = Look(), time.monotonic() + THIN_LOOK_S
        self._heal: tuple[Heal, Deadline] | None = None
        self._held: Name | None = None

    def until(self, stop: Callable[[], bool]) -> None:
        """Turn after turn; one that was aborted is taken again from the state and the offsets as committed."""
        while True:
            try:
                if self._state is None:
                    self._state = self._read_state()
                    if not self._committed:
                        self._start(self._state)
                elif stop():
                    return self._finish(self._state)
                else:
                    self._turn(self._state)
            except Rewind as exc:  # too many in a row are Fatal, the Session sees to that
                self._log.warning("rewind", reason=str(exc))
                self._state = None
                self._hold(None)
            self._heart.beat()

    def _read_state(self) -> State:
        """The state as committed; one without a bundle where there is none. Fatal: a commit of ours is missing."""
        crash_point("monitor.before-state-read")
        parts: dict[str, bytes] = {}
        for record in read_all(self._kafka, self._topics["state"], self._settings.commit_budget_s):
            key = (record.key or b"").decode()
            if record.value is None:
                parts.pop(key, None)
            else:
                parts[key] = record.value
        state = load(parts) or State(Core(bundle=""))
        if state.core.turn < self._committed:
            raise Fatal(f"{self._topics['state']} ends at turn {state.core.turn}, {self._committed} was committed")
        return state

    def _start(self, old: State) -> None:
        """Say what is in force, and begin afresh where there is no state for this bundle."""
        setup, at, state, decisions = self._setup, wall_clock(), old, []
        before, now = old.core.bundle[:12], setup.bundle[:12]
        if old.core.bundle != setup.bundle:
            decisions += without_candidate(old, at, None, f"bundle {now} takes the place of {before}")
            state = old.replaced(setup.bundle)
            why = f"bundle {now} takes the place of {before}" if before else f"bundle {now}, no state yet"
            decisions.append(says.active(FIRST_VERSION, old.core.active, at, why))
            if before:
                facts = {"version": FIRST_VERSION, "previous": old.core.active, "bundle": setup.bundle}
                message = f"{FIRST_VERSION} activated: {why}; its adapters and their health are forgotten"
                decisions.append(says.event("adapter-activated", at, message, previous_bundle=old.core.bundle, **facts))
        else:
            decisions += policy_changed(state, setup, at)
        state.core.policy, state.core.thresholds = setup.policy, setup.thresholds.values()
        why = "defaults" if self._settings.thresholds is None else self._settings.thresholds.name
        control = Control(setting="thresholds", at=at, by=says.SERVICE, reason=why, values=state.core.thresholds)
        event = lifecycle(
            "service-started", says.SERVICE, at, about=f"policy {setup.policy}, batch {state.core.batches}",
            bundle=setup.bundle, policy=setup.policy, active=state.core.active, share=state.core.share,
            label_patience=setup.label_patience,
        )  # fmt: skip
        started = Decision("events", says.SERVICE, event)
        self._commit(state, [*decisions, Decision("control", "thresholds", control), started], [])
        self._state = state

    def _finish(self, state: State) -> None:
        event = lifecycle("service-stopped", says.SERVICE, wall_clock())
        self._commit(state, [Decision("events", says.SERVICE, event)], [])

    def _turn(self, state: State) -> None:
        taken = self._session.take(self._settings.turn_max, self._settings.poll_s)
        at = wall_clock()
        decisions: list[Decision] = []
        refused: list[tuple[Taken, Refused]] = []
        for chunk in _chunks(taken):
            inputs = [self._input(record) for record in chunk]
            rows = self._fetched(state, inputs)
            for record, given in zip(chunk, inputs, strict=True):
                try:
                    decisions += fold(state, self._setup, given, at, rows.get(given.source))
                except Refused as exc:
                    refused.append((record, exc))
        decisions += self._overdue(state, at)
        decisions += self._thinned(state, at)
        if taken or decisions:
            self._commit(state, decisions, refused)
        self._pace(state)

    def _input(self, record: Taken) -> Input:
        source = Source(topic=record.topic, partition=record.partition, offset=record.offset)
        return Input(self._names[record.topic], source, record.key, record.value, record.headers)

    def _fetched(self, state: State, inputs: Sequence[Input]) -> dict[Source, Array]:
        """Rows of the predictions among the inputs, by where these stood. Raises Rewind: not read in time."""
        if self._rows is None:
            return {}
        wanted = {record.source: where for record in inputs if (where := stood(state, self._setup, record))}
        try:
            found = self._rows.read(wanted.values())
        except TimedOut as exc:
            self._late += 1
            if self._late == FETCH_TRIES:
                raise Fatal(f"{exc}, {FETCH_TRIES} times in a row") from exc
            self._session.rewind()
            raise Rewind(str(exc)) from exc
        self._late = 0
        return {at: found[where] for at, where in wanted.items() if where in found}

    def _overdue(self, state: State, at: str) -> list[Decision]:
        """The time-out counts while this process runs: an outcome that came while it was down is read first."""
        heal = state.core.heal
        if heal is None:
            self._heal = None
        elif self._heal is None or self._heal[0] != heal:
            self._heal = heal, Deadline(self._settings.heal_timeout_s)
        elif self._heal[1].passed():
            return expired(state, at, self._settings.heal_timeout_s)
        return []

    def _pace(self, state: State) -> None:
        most, pending = self._settings.pending_max, len(state.pending)
        left = pending > most / 2 and self._session.lag(topic_name("labels", self._settings.prefix)) > 0
        held = waiting(self._held, len(state.early), pending, most, left)
        if held != self._held:
            self._hold(held)

    def _hold(self, held: Name | None) -> None:
        self._session.hold([] if held is None else [topic_name(held, self._settings.prefix)])
        self._held = held

    def _thinned(self, state: State, at: str) -> list[Decision]:
        """Look at the backlog now and then, and read a smaller or larger share of the batches."""
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + THIN_LOOK_S
        lag = self._session.lag(topic_name("predictions", self._settings.prefix))
        before = state.core.share
        state.core.share, self._look = next_share(before, lag, self._look, self._settings.thin_lag)
        return says.thinning(at, before, state.core.share, lag, self._setup.thin_seed)

    def _commit(self, state: State, decisions: list[Decision], refused: list[tuple[Taken, Refused]]) -> None:
        state.core.turn += 1
        outputs = [Out(self._topics[d.topic], d.key, encode(d.record)) for d in _final(decisions)]
        outputs += [Out(self._topics["state"], key, value) for key, value in state.changes().items()]
        outputs += [dead_letter(self._topics["dead-letters"], *pair, says.SERVICE) for pair in refused]
        outputs = [self._seal.sign(out) for out in outputs]
        watched = crash_between("monitor.between-control-and-state", self._topics["control"], outputs)
        self._session.commit(crash_between("monitor.after-state", self._topics["state"], watched))
        self._committed = state.core.turn
        for kind, message in says.told(decisions):
            self._log.info(kind, message=message)
        if refused:
            self._log.warning("refused", records=len(refused), first=str(refused[0][1]))


def _final(decisions: list[Decision]) -> list[Decision]:
    """Of the rows of one batch only the last of the turn: readers would see it at the same moment."""
    rows = {d.key: d for d in decisions if d.topic == "metrics"}
    return [d for d in decisions if d.topic != "metrics"] + list(rows.values())


def _chunks(taken: Sequence[Taken]) -> Iterator[list[Taken]]:
    """The records in their order, as many at once as CHUNK_BYTES allows."""
    chunk, size = list[Taken](), 0
    for record in taken:
        if chunk and size + len(record.value or b"") > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += len(record.value or b"")
    if chunk:
        yield chunk
