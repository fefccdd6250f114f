"""Consume, transform, produce, exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import confluent_kafka as ck

from shared.crash import crash_point, crash_soon
from shared.errors import Fatal, Rewind, TimedOut
from shared.kafka.client import Complaints, Deadline, ask, first_contact, insist, refuse, shut
from shared.kafka.denied import Denied
from shared.kafka.plain import Out, Taken, plain
from shared.kafka.pulse import Pulse
from shared.kafka.reading import has_record, open_reader
from shared.kafka.unread import Unread
from shared.kafka.unreadable import stand_in
from shared.kafka.watchdog import WATCHDOG
from shared.kafka.writing import Failures, abort, commit, fencing_told_apart, open_writer, send

ABORTS_MAX = 20  # so many in a row and it is no passing trouble
STUCK_S, STUCK_MIN = 40.0, 3  # nor are a few that took so long: a client may be of no use where a fresh one is
# A member hears of a rebalance by its heartbeat, and while one moves partitions they are nobody's for up to this long.
HEARTBEAT_MS = 500
_SEEK_WAIT_S = 0.02
_SETTLE_S, _LEAVE_S = 0.1, 2.0
# Before compression; the broker judges after it. Junk that came in compressed must go out to the dead letters.
OUTPUT_MAX_BYTES = 64 * 1024 * 1024


class Session:
    """One consumer of a group and one transactional producer.

    Static membership (the slot's name) lets a restarted replica take its partitions back at once; the
    transactional.id of the same name lets it end what its predecessor left open, and fences a zombie.
    For one thread. Raises OperatorError: no broker within budget_s.
    """

    def __init__(
        self, kafka: Mapping[str, Any], *, name: str, group: str, topics: Sequence[str], budget_s: float,
        session_timeout_ms: int = 10_000, transaction_timeout_ms: int = 10_000, transactional_id: str | None = None,
    ) -> None:  # fmt: skip
        self._budget_s, self._timeout_ms, self._group = budget_s, transaction_timeout_ms, group
        self._gone: set[tuple[str, int]] = set()  # taken from us since we last looked
        self.moves = 0  # how often that happened: what another replica published meanwhile is not known here
        # Per partition, of what was taken since the last commit: where it begins, and the offset after it.
        self._first: dict[tuple[str, int], int] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._starts: dict[tuple[str, int], int] = {}  # committed offset of partitions nothing was taken from yet
        self._positions: dict[tuple[str, int], int] = {}  # behind what was taken, committed or not
        self._aborts, self._aborted_since = 0, 0.0  # in a row, and when the first transaction of them began
        self._sent: set[str] = set()  # topics of the newest transaction
        self._closed = False
        self._failures, complaints, own = Failures(), Complaints(), transactional_id or f"{group}-{name}"
        self._producer = open_writer(
            kafka, name, self._failures, complaints, **{
                "transactional.id": own,
                "transaction.timeout.ms": transaction_timeout_ms,
                "message.max.bytes": OUTPUT_MAX_BYTES,
                # A record may not outlive its transaction in the client's queue.
                "delivery.timeout.ms": min(transaction_timeout_ms, 120_000),
            },
        )  # fmt: skip
        with first_contact(kafka, self._producer, complaints):
            # Fences the predecessor first.
            insist(self._producer.init_transactions, Deadline(budget_s), f"Write on transactional-id {own}")
        crash_point("session.after-fencing")
        self._consumer = open_reader(
            kafka, name, complaints, **{
                "group.id": group,
                "group.instance.id": f"{group}-{name}",
                "session.timeout.ms": session_timeout_ms,
                "heartbeat.interval.ms": min(HEARTBEAT_MS, session_timeout_ms // 4),
                "max.poll.interval.ms": max(300_000, session_timeout_ms),
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.partition.eof": False,
            },
        )  # fmt: skip
        self._pulse = Pulse(kafka, self._consumer, topics[0])
        self._unread = Unread(self._consumer, topics, lambda where, offset: has_record(kafka, *where, offset))
        self._topics, self._held = list(topics), frozenset[str]()
        self._paused = set[tuple[str, int]]()  # the client keeps a pause while a partition is another's
        self._handed_out = False  # partitions came since we last looked
        self._anew = False  # joined again, and nothing was taken since
        self._join()

    def _join(self) -> None:
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assigned, on_revoke=self._on_moved, on_lost=self._on_moved
        )

    def _on_assigned(self, _consumer: ck.Consumer, _partitions: list[ck.TopicPartition]) -> None:
        self._handed_out = True

    def _on_moved(self, _consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self.moves += 1
        self._gone.update((p.topic, p.partition) for p in partitions)  # no transaction is open: nothing to flush

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Up to `most` records; waits `timeout_s` for the first only. Raises Rewind when partitions moved while
        something was taken (it may be another replica's by now), and after joining the group anew; Fatal, Fenced."""
        held_some = bool(self._first)
        if self._handed_out:  # one that comes back is held or not as it was when it went
            with suppress(ck.KafkaException):  # polling tells why
                self.hold(self._held)
                self._handed_out = False
        if not held_some and (unread := self._unread.look(self._held)):
            self._join_anew(unread)
        first = self._consumer.poll(timeout_s)
        moved = self._forget_gone()
        messages = [] if first is None else [first]
        if first is None:
            self._pulse.check()
        else:
            self._pulse.heard()
            self._anew = False
        if messages and most > 1 and not moved:
            messages += self._consumer.consume(most - 1, 0)
            moved = self._forget_gone()
        good: list[Taken] = []
        skipped: list[Taken] = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(plain(message))
            elif (junk := stand_in(error, message, self._position)) is not None:
                if not any(r[:3] == junk[:3] for r in skipped):  # the client may complain of one more than once
                    skipped.append(junk)
            else:  # first: one that was fenced also loses its partitions, and hears why only once
                refuse(error, message, self._group)
        if moved and (good or held_some):
            self._note(good)
            self.rewind()
            raise Rewind("partitions moved to another replica")
        self._note(good + skipped)
        self._unread.took(self._next)
        self._seek_all([ck.TopicPartition(r.topic, r.partition, r.offset + 1) for r in skipped])
        return good + skipped

    def _join_anew(self, unread: Sequence[tuple[str, int]]) -> NoReturn:
        """Raises Rewind, and Fatal where that was of no use before: this replica is still handed nothing."""
        told = ", ".join(f"{topic}[{partition}]" for topic, partition in unread)
        mine = self.assignment()
        if self._anew and not (mine and set(unread).isdisjoint(mine)):
            raise Fatal(f"this client is handed nothing of {told}, whose records wait: a fresh process reads them")
        with WATCHDOG.watching(self._budget_s):
            self._consumer.unsubscribe()
            self._join()
        self._anew = True
        raise Rewind(f"no replica reads {told}: joined the group anew")

    def _position(self, where: tuple[str, int]) -> int:
        """The offset that the client stands at: behind what was taken, or where it began."""
        if where not in self._positions:
            asked = [ck.TopicPartition(*where)]
            found = ask(lambda s: self._consumer.committed(asked, timeout=s), Deadline(self._budget_s))
            self._positions[where] = max(0, found[0].offset)
        return self._positions[where]

    def _forget_gone(self) -> bool:
        """Whether partitions were taken from us. One that came back meanwhile begins at the committed offset, so what
        was taken from it before counts for nothing, and it is not sought back."""
        gone, self._gone = self._gone, set()
        for where in gone:
            self._first.pop(where, None)
            self._next.pop(where, None)
            self._positions.pop(where, None)
        if gone:
            self._starts.clear()
        return bool(gone)

    def _note(self, records: list[Taken]) -> None:
        for record in records:
            where = (record.topic, record.partition)
            self._first.setdefault(where, record.offset)
            self._next[where] = self._positions[where] = record.offset + 1

    def commit(self, outputs: Iterable[Out], *, before_commit: Callable[[], None] | None = None) -> None:
        """Publish outputs and the offsets of everything taken since the last commit, all or nothing.

        before_commit is called with the transaction open and everything produced. Raises Rewind (aborted
        and sought back: take again), Refused (an output too large; aborted and sought back), OperatorError (not
        allowed), Fatal, Fenced.
        """
        deadline = Deadline(self._budget_s)
        if not self._aborts:
            self._aborted_since = time.monotonic()
        crash_point("session.before-begin")
        insist(lambda _: self._producer.begin_transaction(), deadline)
        crash_point("session.after-begin")
        try:
            with fencing_told_apart(self._timeout_ms):
                self._fill(outputs, deadline)
                if before_commit is not None:
                    before_commit()
                crash_soon("session.in-commit")
                commit(self._producer, deadline)
        except Fatal:
            raise  # fenced, or the outcome is unknown: the successor's init_transactions settles it
        except Denied as exc:  # the same: a transaction in this state cannot always be aborted
            raise exc if exc.what else self._failures.denial(self._sent, exc.reason) from exc
        except BaseException as exc:
            abort(self._producer, self._budget_s)
            self.rewind()
            if isinstance(exc, (Rewind, TimedOut)):
                raise self._aborted(exc) from exc
            raise
        crash_point("session.after-commit")
        self._aborts = 0
        self._forget()

    def _fill(self, outputs: Iterable[Out], deadline: Deadline) -> None:
        self._sent.clear()
        for out in outputs:
            self._sent.add(out.topic)
            send(self._producer, out, deadline)
            crash_point("session.between-records")
        self._producer.poll(0)
        crash_point("session.after-produce")
        offsets = [ck.TopicPartition(t, p, o) for (t, p), o in self._next.items()]
        if offsets:
            # The group's metadata lets the broker refuse a replica whose partitions are another's by now.
            group = self._consumer.consumer_group_metadata()
            what = f"Read on group {self._group}"
            insist(lambda s: self._producer.send_offsets_to_transaction(offsets, group, s), deadline, what)
            crash_point("session.after-offsets")

    def _aborted(self, cause: Exception) -> Exception:
        self._aborts += 1
        if self._failures.denied:
            return self._failures.denial(self._sent, str(cause))
        reasons = "; ".join(filter(None, (str(cause), self._failures.collect())))
        lasted_s = time.monotonic() - self._aborted_since
        if self._aborts >= ABORTS_MAX or (self._aborts >= STUCK_MIN and lasted_s > STUCK_S):
            return Fatal(f"{self._aborts} transactions in a row were aborted, in {lasted_s:.0f} s; the last: {reasons}")
        return Rewind(reasons)

    def rewind(self) -> None:
        """Seek back to where the last commit left off. Raises Fatal.

        Asks nobody: while the group rebalances, the broker answers this client nothing else.
        """
        held = set(self.assignment())
        back = [ck.TopicPartition(*where, first) for where, first in self._first.items() if where in held]
        self._forget()
        self._seek_all(back)

    def put_back(self, records: Iterable[Taken]) -> None:
        """Take these again next time, as if they had not been taken: of each partition the newest, all of them from
        the first that is named. Raises Fatal."""
        first: dict[tuple[str, int], int] = {}
        for record in records:
            first.setdefault((record.topic, record.partition), record.offset)
        for where, offset in first.items():
            self._next[where] = offset
            if self._first.get(where) == offset:
                del self._first[where], self._next[where]
        self._seek_all([ck.TopicPartition(*where, offset) for where, offset in first.items()])

    def _seek_all(self, back: list[ck.TopicPartition]) -> None:
        deadline = Deadline(self._budget_s)
        try:
            # Without pause and resume: a seek drops by itself what was fetched before it, and after a resume the
            # client's thread for that broker often sleeps on for its whole second.
            with WATCHDOG.watching(self._budget_s):
                for target in back:
                    self._seek(target, deadline)
                    self._positions[target.topic, target.partition] = target.offset
        except ck.KafkaException as exc:
            raise Fatal(f"cannot seek back: {exc.args[0].str()}") from exc

    def _forget(self) -> None:
        self._first.clear()
        self._next.clear()

    def _seek(self, target: ck.TopicPartition, deadline: Deadline) -> None:
        """A partition that was assigned a moment ago cannot be sought in until its fetcher runs."""
        while True:
            try:
                return self._consumer.seek(target)
            except ck.KafkaException as exc:
                if exc.args[0].code() != ck.KafkaError._STATE or deadline.passed():
                    raise
                time.sleep(_SEEK_WAIT_S)

    def assignment(self) -> list[tuple[str, int]]:
        """(topic, partition) that this replica holds now."""
        return [(p.topic, p.partition) for p in self._consumer.assignment()]

    def hold(self, topics: Collection[str]) -> None:
        """Take nothing from these topics, and again from all others, until told otherwise."""
        self._held = frozenset(topics)
        assigned = self._consumer.assignment()
        held = [p for p in assigned if p.topic in topics]
        freed = [p for p in assigned if p.topic not in topics and (p.topic, p.partition) in self._paused]
        self._consumer.pause(held)
        self._consumer.resume(freed)  # of those alone, as a resume can cost a second
        self._paused.update((p.topic, p.partition) for p in held)
        self._paused.difference_update((p.topic, p.partition) for p in freed)

    def lag(self, topic: str | None = None) -> int:
        """Offsets not yet taken in the assigned partitions, of one topic or of all, as far as the client knows:
        about the records (markers and open transactions count too). Blocks for a second at most, seldom."""
        total = 0
        for p in self._consumer.position([p for p in self._consumer.assignment() if topic in (None, p.topic)]):
            low, high = self._consumer.get_watermark_offsets(p, cached=True)
            position = p.offset if p.offset >= 0 else self._start(p)
            if high >= 0 and position is not None:
                total += max(0, high - max(low, position))
        return total

    def _start(self, partition: ck.TopicPartition) -> int | None:
        """Where the group stands in a partition that nothing was taken from yet; None where nobody says so now."""
        where = (partition.topic, partition.partition)
        if where not in self._starts:
            try:
                found = self._consumer.committed([partition], timeout=1.0)[0]
            except ck.KafkaException:  # the group is rebalancing
                return None
            if found.error is not None:
                return None
            self._starts[where] = max(found.offset, 0)
        return self._starts[where]

    def close(self) -> None:
        """Let go of the consumer; an idle producer needs no goodbye (and its close fails where it was fenced). The
        partitions stay this name's until the session timeout: a successor takes them over at once, others wait."""
        if not self._closed:
            self._closed = True
            shut(self._leave)

    def _leave(self) -> None:
        """End the subscription, serve the rebalance that this or a joining under way brings, then close. A rebalance
        left to close itself can hang the process (seen): its callback waits, and keeps the GIL, for the answer of a
        thread that has stopped listening, so that not even the time-out of shut would be looked at."""
        with suppress(ck.KafkaException):  # a fenced one is out of the group already
            self._consumer.unsubscribe()
        deadline = Deadline(_LEAVE_S)
        self._consumer.poll(_SETTLE_S)
        while self._consumer.assignment() and not deadline.passed():
            self._consumer.poll(_SETTLE_S)
        self._consumer.close()
