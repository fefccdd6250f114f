"""Publishing outside of any consume loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import confluent_kafka as ck

from shared.errors import Fatal, Fenced, Refused, Rewind, TimedOut
from shared.kafka.client import Complaints, Deadline, client_config, first_contact, insist, open_client, verdict
from shared.kafka.denied import Denied, denial
from shared.kafka.plain import Out
from shared.telemetry import epoch_ms
from shared.topics import MAX_RECORD_BYTES

_DEFAULTS = {
    "compression.type": "lz4",
    "partitioner": "murmur2_random",  # the same partition as a Java client would choose
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 262_144,
    "message.max.bytes": MAX_RECORD_BYTES,
    "linger.ms": 1,
}
TRANSACTION_TIMEOUT_MS = 10_000  # of a Writer: how long readers wait for one that died
_QUEUED_KB = 8_192  # what a Writer holds while the broker is slow: whoever sends faster waits
_PURGED = (ck.KafkaError._PURGE_QUEUE, ck.KafkaError._PURGE_INFLIGHT)  # what an abort throws away, as it should


class Failures:
    """Why records were not delivered: the commit itself says only how many. Only failures are reported at all."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self.too_large = False
        self.denied: set[str] = set()  # topics

    def note(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """The client's delivery report."""
        if error is None or error.code() in _PURGED:
            return
        if error.code() == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self.denied.add(str(message.topic()))
        if len(self._reasons) == 3:
            return
        self._reasons.append(f"{message.topic()}: {error.str()}")
        self.too_large |= error.code() == ck.KafkaError.MSG_SIZE_TOO_LARGE

    def denial(self, sent: Iterable[str], reason: str) -> Denied:
        """sent: topics of the transaction, for where the client does not tell which one it was."""
        topics = sorted(self.denied) or sorted(sent)
        return Denied(f"Write on {'topic' if len(topics) == 1 else 'one of the topics'} {', '.join(topics)}", reason)

    def collect(self) -> str:
        """The first few since the last call, empty when there were none."""
        reasons, self._reasons, self.too_large = "; ".join(self._reasons), [], False
        return reasons


def open_writer(
    kafka: Mapping[str, Any], client_id: str, failures: Failures, complaints: Complaints, **fixed: Any
) -> ck.Producer:
    """An idempotent producer."""
    config = {
        **_DEFAULTS,
        **client_config(kafka, client_id),
        "enable.idempotence": True,
        "delivery.report.only.error": True,
        "on_delivery": failures.note,
        "error_cb": complaints,
        **fixed,
    }
    return open_client(ck.Producer, config)


def send(producer: ck.Producer, out: Out, deadline: Deadline) -> None:
    """Hand one record to the client; waits for room in its bounded queue. Raises TimedOut, Refused (too large),
    Rewind, Fatal, Fenced."""
    headers: list[tuple[str, str | bytes | None]] | None = list(out.headers.items()) or None
    partition = -1 if out.partition is None else out.partition
    while True:
        try:
            return producer.produce(out.topic, out.value, out.key, partition, headers=headers)
        except BufferError:
            if deadline.passed():
                raise TimedOut(f"no room to publish to {out.topic}: the broker does not keep up") from None
            producer.poll(0.1)
        except ck.KafkaException as exc:
            error: ck.KafkaError = exc.args[0]
            if error.code() == ck.KafkaError.MSG_SIZE_TOO_LARGE:
                size = len(out.value or b"")
                raise Refused(f"a record of {size:,} bytes is too large to publish to {out.topic}") from exc
            if (no := denial(error)) is not None:
                raise no from exc
            if error.code() == ck.KafkaError._STATE:  # the transaction failed before this record: its abort tells why
                raise Rewind(f"{out.topic}: the transaction has failed") from exc
            raise (verdict(error) or Fatal)(f"{out.topic}: {error.str()}") from exc


class Writer:
    """Publishes records. transactional_id given: each publish is one transaction, and a newer Writer of the same
    id fences this one. Raises OperatorError: no broker within budget_s."""

    def __init__(
        self, kafka: Mapping[str, Any], name: str, *, transactional_id: str | None = None, budget_s: float = 30.0,
        linger_ms: float = 5,
    ) -> None:  # fmt: skip
        self._budget_s = budget_s
        self._failures, self._complaints = Failures(), Complaints()
        self._transactional = transactional_id is not None
        kafka = {"queue.buffering.max.kbytes": _QUEUED_KB, **kafka}
        fixed: dict[str, Any] = {"linger.ms": linger_ms}
        if transactional_id is not None:
            fixed |= {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "delivery.timeout.ms": TRANSACTION_TIMEOUT_MS,
            }
        self._producer = open_writer(kafka, name, self._failures, self._complaints, **fixed)
        if self._transactional:
            with first_contact(kafka, self._producer, self._complaints):
                own = f"Write on transactional-id {transactional_id}"
                insist(self._producer.init_transactions, Deadline(budget_s), own)

    def send(self, out: Out) -> None:
        """Queue one record (not transactional writers). Raises TimedOut when the broker does not keep up, Refused
        when the record is too large."""
        send(self._producer, out, Deadline(self._budget_s))
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all is acknowledged. Raises Refused (a record too large for its topic), else Fatal when
        something was not: what is left over is lost, not late."""
        left = self._producer.flush(self._budget_s)
        if self._failures.denied:
            raise self._failures.denial((), self._failures.collect())
        too_large, reasons = self._failures.too_large, self._failures.collect()
        if too_large:
            raise Refused(reasons)
        if left or reasons:
            why = reasons or self._complaints.last
            raise Fatal(f"{left} records not acknowledged in {self._budget_s:g} s; {why}")

    def publish(self, outputs: Iterable[Out]) -> None:
        """All outputs: in one transaction where this writer has a transactional id, else sent and flushed.

        Raises TimedOut, Refused, Fatal, Fenced as send and flush do; a transaction is aborted first.
        """
        if not self._transactional:
            for out in outputs:
                self.send(out)
            return self.flush()
        records, deadline = list(outputs), Deadline(self._budget_s)
        while True:
            try:
                with fencing_told_apart(TRANSACTION_TIMEOUT_MS):
                    return self._transaction(records, deadline)
            except Rewind as exc:  # aborted; nothing was consumed, so the same again is all there is to do
                if self._failures.denied:
                    raise self._failures.denial((), str(exc)) from exc
                too_large, reasons = self._failures.too_large, self._failures.collect()
                if too_large:
                    raise Refused(reasons) from exc
                if deadline.passed():
                    raise TimedOut(f"{exc}; {reasons}") from exc

    def _transaction(self, records: list[Out], deadline: Deadline) -> None:
        insist(lambda _: self._producer.begin_transaction(), deadline)
        try:
            for out in records:
                send(self._producer, out, deadline)
            commit(self._producer, deadline)
        except (Fatal, Denied):
            raise
        except BaseException:
            abort(self._producer, self._budget_s)
            raise

    def close(self) -> None:
        """Flush what is queued. Raises as flush."""
        self.flush()


@contextmanager
def fencing_told_apart(timeout_ms: int) -> Iterator[None]:
    """Around one transaction. The client calls itself fenced also when the broker ended the transaction because it
    lasted too long (a process that was stopped, a laptop that slept): that is Fatal, and a fresh start mends it."""
    began = epoch_ms()  # the wall clock: the monotonic one stands still in a machine that sleeps
    try:
        yield
    except Fenced as exc:
        lasted = epoch_ms() - began
        if lasted < timeout_ms:
            raise
        raise Fatal(f"a transaction lasted {lasted / 1000:.0f} s and the broker may have ended it: {exc}") from exc


def commit(producer: ck.Producer, deadline: Deadline) -> None:
    """Commit the open transaction. Raises Rewind (abort it), Fenced, Fatal: the outcome may be unknown then, and
    the next init_transactions of this transactional.id settles it."""
    try:
        insist(producer.commit_transaction, deadline)
    except TimedOut as exc:
        raise Fatal(f"whether a transaction was committed is unknown: {exc}") from exc


def abort(producer: ck.Producer, budget_s: float) -> None:
    """Abort the open transaction. Raises Fatal, Fenced."""
    try:
        insist(producer.abort_transaction, Deadline(budget_s))
    except (TimedOut, Rewind) as exc:
        raise Fatal(f"cannot abort a transaction: {exc}") from exc
