"""A stranger's steady load, in a process of its own: `python -m selfheal.chaos.load SPEC`, SPEC as JSON.

Three in a hundred messages are junk, labels come late, drifts come and go (drifts.py). What the broker acknowledged
is written to a journal, line by line: whoever kills brokers can be held to it.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from producer.labels import LabelPlan, LabelQueue
from producer.pace import Pace
from producer.service import encode_batch
from selfheal.chaos.drifts import Stream
from selfheal.process import Stop, end_with_parent, stop_on_signals
from shared.kafka import Out, Writer
from shared.records import Policy, encode
from shared.settings import kafka_settings
from shared.telemetry import set_up_logging, wall_clock
from shared.topics import topic_name

JUNK_SHARE, JUNK_LABELS_SHARE, NEVER_LABELLED = 0.03, 0.03, 0.02
FLUSH_EVERY_S = 0.5
PATIENCE_S = 120.0  # for a broker that is down


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


def run(kafka: Mapping[str, Any], spec: Spec, stop: Callable[[], bool]) -> None:
    """Send until stop(); then the labels that are still due, and all is acknowledged. Raises Fatal, TimedOut."""
    rng = random.Random(spec.seed)
    stream = Stream(spec.seed, spec.policy)
    labels = LabelQueue(LabelPlan(delay=5, audit_share=0.1, audit_delay=1, seed=spec.seed))
    transactions, answers = topic_name("transactions", spec.prefix), topic_name("labels", spec.prefix)
    writer, pace = Writer(kafka, "chaos-load", budget_s=PATIENCE_S), Pace(spec.rate)
    flushed, unsure = time.monotonic(), []
    with Path(spec.journal).open("w", encoding="utf-8") as journal:
        for k in itertools.count(1):
            if not pace.wait(k, stop):
                break
            batch_id = f"load{spec.seed}-{k:06d}"
            batch = stream.batch(k)
            ids = [f"{batch_id}-{i}" for i in range(len(batch.rows))]
            value: bytes | None = encode_batch(batch, batch_id, ids, wall_clock())
            if bad := rng.random() < JUNK_SHARE:
                value = junk(rng, value or b"")
            writer.send(Out(transactions, batch_id, value))
            unsure.append(batch_id)
            due = [] if bad or batch.labels is None or rng.random() < NEVER_LABELLED else labels.add(
                batch_id, ids, batch.labels
            )  # fmt: skip
            for each in due:
                spoilt = rng.random() < JUNK_LABELS_SHARE
                writer.send(Out(answers, each.batch_id, b'{"batch_id": 7}' if spoilt else encode(each)))
            if time.monotonic() - flushed >= FLUSH_EVERY_S:
                writer.flush()
                journal.writelines(f"{each}\n" for each in unsure)
                journal.flush()
                flushed, unsure = time.monotonic(), []
        for each in labels.rest():
            writer.send(Out(answers, each.batch_id, encode(each)))
        writer.close()
        journal.writelines(f"{each}\n" for each in unsure)


def main() -> None:
    """Entry point of the process."""
    stop: Stop = stop_on_signals()
    end_with_parent(stop)
    set_up_logging("WARNING")
    run(kafka_settings(), msgspec.json.decode(sys.argv[1], type=Spec), stop)


if __name__ == "__main__":
    main()
