"""Replay: a recorded stream as it was scored, by the same adapters; or its rows anew, through a pipeline that decides
for itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from producer.answers import Answers, read_answers
from producer.drift import Drifted, Step
from producer.pace import Pace, check_rate
from producer.replay_source import ReplaySource
from producer.service import FLUSH_EVERY_S, Produced, Sent, run
from producer.span import WHOLE, Span, in_order, resolve
from producer.target import Target, need_topics
from shared.adapters import ADAPTERS_KEPT
from shared.errors import OperatorError, Refused
from shared.kafka import Fetcher, Follower, Out, Taken, Writer, create_topics, watermarks
from shared.records import FIRST_VERSION
from shared.settings import ProducerSettings
from shared.signing import Seal
from shared.telemetry import Heartbeat, get_logger
from shared.topics import Name, topic_name

BUDGET_S = 300.0  # longest that reading a whole topic of the original may take
_FRESH: tuple[Name, ...] = ("transactions", "predictions", "adapters", "dead-letters")


@dataclass(frozen=True)
class Recorded:
    """What a replay as recorded sent. dead: records that became dead letters, sent as they are. unscored: records
    of the range that had no answer in the original, and were not sent."""

    adapters: int
    batches: int
    dead: int
    unscored: int
    took_s: float

    @property
    def sent(self) -> int:
        """Records that the new pipeline answers for."""
        return self.batches + self.dead


def as_recorded(
    settings: ProducerSettings, kafka: Mapping[str, Any], *, origin: str, span: Span = WHOLE, rate: float | None = None,
    bundle: str | None = None, on_record: Callable[[int], None] | None = None, stop: Callable[[], bool] = lambda: False,
) -> Recorded:  # fmt: skip
    """Send the records of the prefix `origin` to settings.prefix, each naming the adapter that scored it then.

    Bytes, keys and partition numbers stay; the original's adapters go first, unchanged. Topics of the new prefix are
    created where missing, and must be empty. Labels are not sent: no decision is asked for. bundle: hash of the one
    that the new scorers run. rate: records/s. on_record: called with the number sent so far. Raises OperatorError:
    prefixes, an empty range, another bundle, an adapter that is gone; Fatal, TimedOut as service.run.
    """
    began = time.monotonic()
    check_rate(rate)
    source, target = topic_name("transactions", origin), topic_name("transactions", settings.prefix)
    partitions = need_topics(kafka, [source])[source]
    _make_fresh(kafka, origin, settings.prefix, partitions)
    ranges = resolve(kafka, source, span, settings.commit_budget_s)
    answers = read_answers(kafka, origin, ranges, BUDGET_S)
    if not answers.versions:
        raise OperatorError(f"nothing to replay as recorded: no batch of the range has a prediction under {origin!r}")
    _check_bundle(answers, bundle)
    original = _Adapters(kafka, origin, Seal.of(settings, origin))
    _check_adapters(original, answers.versions)
    writer = Writer(kafka, f"producer-{settings.slot}", budget_s=settings.commit_budget_s)
    adapters = _copy_adapters(original, writer, settings.prefix, answers.versions, Seal.of(settings))
    partitions = need_topics(kafka, [target])[target]
    batches = dead = unscored = 0
    heart, pace, flushed = Heartbeat(), Pace(rate), time.monotonic()
    with closing(Fetcher(kafka, "producer-replay")) as fetcher:
        for record in in_order(fetcher, ranges, settings.commit_budget_s):
            version, is_dead = answers.of(record.partition, record.offset)
            if version is None and not is_dead:
                unscored += 1
                continue
            if not pace.wait(batches + dead + 1, stop):
                break
            writer.send(_again(record, target, partitions, version))
            batches, dead = batches + (not is_dead), dead + is_dead
            heart.beat()
            if time.monotonic() - flushed >= FLUSH_EVERY_S:
                writer.flush()
                flushed = time.monotonic()
            if on_record is not None:
                on_record(batches + dead)
    writer.close()
    took_s = round(time.monotonic() - began, 3)
    get_logger("producer").info("replayed", batches=batches, dead=dead, unscored=unscored, took_s=took_s)
    return Recorded(adapters, batches, dead, unscored, took_s)


def anew(
    settings: ProducerSettings, kafka: Mapping[str, Any], *, origin: Target, features: Sequence[str],
    span: Span = WHOLE, steps: tuple[Step, ...] = (), batches: int | None = None, rate: float | None = None,
    lockstep: bool = False, flush_labels: bool = False, run_name: str | None = None, to: Target | None = None,
    on_batch: Callable[[Sent], None] | None = None, stop: Callable[[], bool] = lambda: False,
) -> Produced:  # fmt: skip
    """Send the rows of a transactions topic, drifted by row steps, to settings.prefix or to `to`, as service.run does.

    origin: where they are; its labels topic (None: no labels) is replayed at the original distance. features: the
    bundle's. run_name: new batch ids <run_name>-000001, ..; by default the ids stay, so the target must be another
    pipeline. created_at stays. Raises as service.run, and OperatorError: an empty range, a step that needs labels.
    """
    target = to or Target.of(settings.prefix)
    if target.transactions == origin.transactions and run_name is None:
        raise OperatorError(f"a replay of {target.transactions} onto itself doubles its batch ids: give a run name")
    labels = None if target.labels is None else origin.labels
    source = ReplaySource(kafka, origin.transactions, labels, features, span, run_name, flush_labels)
    return run(
        settings, kafka, Drifted(source, steps), batches=batches, rate=rate, lockstep=lockstep, run_name=run_name,
        to=to, on_batch=on_batch, stop=stop,
    )  # fmt: skip


def _make_fresh(kafka: Mapping[str, Any], origin: str, prefix: str, partitions: int) -> None:
    """The new pipeline's topics, as many partitions as the original's. Raises OperatorError: it was used before."""
    if prefix == origin:
        raise OperatorError("a replay as recorded needs a prefix of its own: give --prefix")
    create_topics(kafka, prefix, partitions=partitions)
    for name in _FRESH:
        topic = topic_name(name, prefix)
        if any(high > low for low, high in watermarks(kafka, topic).values()):
            raise OperatorError(f"{topic} holds records already: a replay as recorded needs a fresh prefix")


def _check_bundle(answers: Answers, bundle: str | None) -> None:
    if len(answers.bundles) > 1:
        shown = ", ".join(sorted(b[:12] for b in answers.bundles))
        raise OperatorError(f"the range was scored with several bundles ({shown}): replay a range of one of them")
    (recorded,) = answers.bundles
    if bundle is not None and bundle != recorded:
        raise OperatorError(f"the range was scored with bundle {recorded[:12]}, this one is {bundle[:12]}")


def _check_adapters(original: _Adapters, needed: Sequence[str]) -> None:
    """Raises OperatorError: a version that scored batches is no longer on the original's adapters topic."""
    if len(needed) > ADAPTERS_KEPT:
        raise OperatorError(
            f"the range was scored by {len(needed)} adapters, a scorer keeps {ADAPTERS_KEPT}: replay a shorter range"
        )
    there = {FIRST_VERSION}
    for record in original:
        version = (record.key or b"").decode("utf-8", "replace")
        (there.add if record.value is not None else there.discard)(version)
    if gone := sorted(set(needed) - there):
        unsigned = f" ({original.unsigned} of its records are not signed with our key)" if original.unsigned else ""
        raise OperatorError(
            f"{original.topic} no longer holds {', '.join(gone[:5])}, which scored batches then{unsigned}"
        )


def _copy_adapters(original: _Adapters, writer: Writer, prefix: str, versions: Collection[str], seal: Seal) -> int:
    """The entries that scored these batches, bytes and headers unchanged but for the signature; the number copied. A
    long run publishes thousands, of which a scorer keeps a bounded number."""
    copied, wanted = 0, {v.encode() for v in versions}
    for record in original:
        if record.key not in wanted:
            continue
        writer.send(seal.sign(Out(topic_name("adapters", prefix), record.key, record.value, record.headers)))
        copied += 1
    writer.flush()
    return copied


class _Adapters:
    """The original's entries, as often as they are asked for. unsigned: how many of them the newest reading left out,
    which no scorer with our key would have taken."""

    def __init__(self, kafka: Mapping[str, Any], origin: str, seal: Seal) -> None:
        self._kafka, self._seal, self.topic, self.unsigned = kafka, seal, topic_name("adapters", origin), 0

    def __iter__(self) -> Iterator[Taken]:
        self.unsigned = 0
        with closing(Follower(self._kafka, [self.topic], name="producer-adapters")) as follower:
            for record in follower.until_end(BUDGET_S):
                try:
                    self._seal.check(record)
                except Refused:
                    self.unsigned += 1
                    continue
                yield record


def _again(record: Taken, target: str, partitions: int, version: str | None) -> Out:
    """The same record, told which adapter to use. Nobody waits for it, so it is no longer lockstep."""
    headers: dict[str, str | bytes] = {k: v for k, v in record.headers.items() if k != "lockstep"}
    if version is not None:
        headers["adapter"] = version
    partition = record.partition if record.partition < partitions else None
    return Out(target, record.key, record.value, headers, partition)
