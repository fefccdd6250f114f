"""A stranger's steady load, in a process of its own: `python -m selfheal.chaos.load SPEC`, SPEC as JSON.

Three in a hundred messages are junk, labels come late, drifts come and go (drifts.py). What the broker acknowledged
is written to a journal, line by line: whoever kills brokers can be held to it.
"""

from __future__ import annotations

import itertools
import logging
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec

from producer.labels import LabelPlan, LabelQueue
from producer.pace import Pace
from producer.service import encode_batch
from selfheal.chaos.drifts import Stream
from selfheal.process import Stop, end_with_parent, stop_on_signals
from shared.errors import Fatal
from shared.kafka import Out, Writer
from shared.records import Policy, encode
from shared.settings import kafka_settings
from shared.telemetry import set_up_logging, wall_clock
from shared.topics import topic_name

JUNK_SHARE, JUNK_LABELS_SHARE, NEVER_LABELLED = 0.03, 0.03, 0.02
FLUSH_EVERY_S = 0.5
FLUSH_S = 60.0  # for a broker that is down
PATIENCE_S = 120.0  # for the load's end, and for reading what it sent
log = logging.getLogger("load")


class Spec(msgspec.Struct, frozen=True):
    """rate: messages/s. policy: of the monitor, which says what drifts. journal: the file for what was acknowledged."""

    prefix: str
    policy: Policy
    seed: int
    rate: float
    journal: str


def junk(rng: random.Random, good: bytes) -> bytes | None:
    """A message that no scorer can use; some are a good one with one fault."""
    kinds: tuple[Callable[[], bytes | None], ...] = (
        lambda: None,
        lambda: b"",
        lambda: b"{}",
        lambda: rng.randbytes(300),
        lambda: b"[" * 5_000,
        lambda: b"x" * 200_000,
        lambda: good[: len(good) // 2],
        lambda: good.replace(b'"features":[[', b'"features":[[NaN,', 1),
        lambda: good.replace(b'"features":[[', b'"features":[[1e999,', 1),
        lambda: good.replace(b'"features":[[', b'"features":[[', 1).replace(b"]]", b",0.5]]", 1),
        lambda: good.replace(b'"transaction_ids"', b'"ids"', 1),
    )
    return rng.choice(kinds)()


class Sender:
    """Sends to the broker, and writes to the journal the keys that it acknowledged."""

    def __init__(self, kafka: Mapping[str, Any], journal: TextIO) -> None:
        self._kafka, self._journal = kafka, journal
        self._unsure: list[str] = []
        self._settled = time.monotonic()
        self._writer = self._opened()

    def _opened(self) -> Writer:
        return Writer(self._kafka, "chaos-load", budget_s=FLUSH_S)

    def send(self, out: Out, key: str | None = None) -> None:
        """key: for the journal. Raises TimedOut, Fatal."""
        self._writer.send(out)
        if key is not None:
            self._unsure.append(key)

    def settle(self, every_s: float = 0.0) -> None:
        """Wait until all is acknowledged, where it last was so long ago. A client that is not told of all in time is
        given up for another, as a service would be that ends and is started again: what it still held may be on the
        topic or not, and nobody is held to it. Raises OperatorError: no broker for the other one either."""
        if time.monotonic() - self._settled < every_s:
            return
        try:
            self._writer.flush()
            self._journal.writelines(f"{key}\n" for key in self._unsure)
            self._journal.flush()
        except Fatal as exc:
            log.warning("another client: %s", exc)
            self._writer = self._opened()
        self._settled, self._unsure = time.monotonic(), []


def run(kafka: Mapping[str, Any], spec: Spec, stop: Callable[[], bool]) -> None:
    """Send until stop(); then the labels that are still due. Raises Fatal, TimedOut."""
    rng = random.Random(spec.seed)
    stream = Stream(spec.seed, spec.policy)
    labels = LabelQueue(LabelPlan(delay=5, audit_share=0.1, audit_delay=1, seed=spec.seed))
    transactions, answers = topic_name("transactions", spec.prefix), topic_name("labels", spec.prefix)
    pace = Pace(spec.rate)
    with Path(spec.journal).open("w", encoding="utf-8") as journal:
        sender = Sender(kafka, journal)
        for k in itertools.count(1):
            if not pace.wait(k, stop):
                break
            batch_id = f"load{spec.seed}-{k:06d}"
            batch = stream.batch(k)
            ids = [f"{batch_id}-{i}" for i in range(len(batch.rows))]
            value: bytes | None = encode_batch(batch, batch_id, ids, wall_clock())
            if bad := rng.random() < JUNK_SHARE:
                value = junk(rng, value or b"")
            sender.send(Out(transactions, batch_id, value), batch_id)
            due = [] if bad or batch.labels is None or rng.random() < NEVER_LABELLED else labels.add(
                batch_id, ids, batch.labels
            )  # fmt: skip
            for each in due:
                spoilt = rng.random() < JUNK_LABELS_SHARE
                sender.send(Out(answers, each.batch_id, b'{"batch_id": 7}' if spoilt else encode(each)))
            sender.settle(FLUSH_EVERY_S)
        for each in labels.rest():
            sender.send(Out(answers, each.batch_id, encode(each)))
        sender.settle()


def main() -> None:
    """Entry point of the process."""
    stop: Stop = stop_on_signals()
    end_with_parent(stop)
    set_up_logging("WARNING")
    run(kafka_settings(), msgspec.json.decode(sys.argv[1], type=Spec), stop)


if __name__ == "__main__":
    main()
