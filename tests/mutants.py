"""Deliberate faults, which exist in tests alone, and the rule of the auditor that has to see each."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck
import mutant_scenarios as on
from mutant_scenarios import Apply, Commit, LeftOpen, Scenario, Struck, kill, refuse
from mutant_world import Killed, World

from scorer import catalog
from shared.kafka import Follower, Out, Session, Taken, Writer
from shared.kafka.session import open_reader
from shared.records import Control, encode

OPEN = "an open transaction"  # no rule: the audit says that it cannot read on
Change = Callable[[World, list[Out]], list[Out]]


@dataclass(frozen=True)
class Mutant:
    """rule: of audit.RULES, or OPEN."""

    name: str
    rule: str
    scenario: Scenario
    apply: Apply


def _session(room: str, build: Callable[[World], type[Session]]) -> Apply:
    return lambda world: world.sabotage(room, build(world))


def _answers(room: str, change: Change) -> Apply:
    """A service whose transactions hold something else than they should."""

    def build(world: World) -> type[Session]:
        class Changed(Session):
            def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
                super().commit(change(world, list(outputs)), before_commit=before_commit)

        return Changed

    return _session(room, build)


def _of(outs: Iterable[Out], name: str) -> list[Out]:
    return [out for out in outs if out.topic.endswith(f".{name}")]


def _but(outs: Iterable[Out], name: str) -> list[Out]:
    return [out for out in outs if not out.topic.endswith(f".{name}")]


def _edited(outs: list[Out], name: str, edit: Callable[[dict[str, Any]], None]) -> list[Out]:
    """The same records, with the JSON of one topic changed."""

    def one(out: Out) -> Out:
        body = json.loads(out.value or b"{}")
        edit(body)
        return out._replace(value=json.dumps(body).encode())

    return [one(out) if out.topic.endswith(f".{name}") else out for out in outs]


# Offsets, transactions, processes


def offsets_first(_: World) -> type[Session]:
    class OffsetsFirst(Struck):
        def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
            outs = list(outputs)
            super().commit([])
            if self.strikes(outs):
                raise Killed
            super().commit(outs)

    return OffsetsFirst


def offsets_after(_: World) -> type[Session]:
    class OffsetsAfter(Struck):
        def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
            outs, held = list(outputs), dict(self._next)
            self._next.clear()
            super().commit(outs)
            if self.strikes(outs):
                raise Killed
            self._next.update(held)
            super().commit([])

    return OffsetsAfter


def _outside(name: str) -> Callable[[World], type[Session]]:
    """Records of one topic are published by themselves, before the transaction."""

    def build(world: World) -> type[Session]:
        class Outside(Struck):
            at = (name,)

            def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
                outs = list(outputs)
                writer = Writer(world.kafka, "mutant", linger_ms=0)
                writer.publish(_of(outs, name))
                super().commit(_but(outs, name), before_commit=kill if self.strikes(outs) else before_commit)

        return Outside

    return build


def random_id(_: World) -> type[Session]:
    class RandomId(LeftOpen):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **{**more, "transactional_id": uuid.uuid4().hex})

    return RandomId


def ignores_abort(_: World) -> type[Session]:
    class IgnoresAbort(Struck):
        def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
            outs = list(outputs)
            struck = self.strikes(outs)
            try:
                super().commit(outs, before_commit=refuse if struck else before_commit)
            except on.Rewind:
                if not struck:
                    raise

        def rewind(self) -> None:
            """Goes on from where it was."""

    return IgnoresAbort


def drops_the_last(world: World) -> type[Session]:
    class DropsTheLast(Struck):
        def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
            outs = list(outputs)
            if struck := self.strikes(outs):
                world.services["scorer"].ask()
            super().commit(_of(outs, "events") if struck else outs, before_commit=before_commit)

    return DropsTheLast


def reads_undecided_control(world: World) -> None:
    class Dirty(Follower):
        def __init__(self, kafka: Mapping[str, Any], topics: list[str], **more: Any) -> None:
            super().__init__(kafka, topics, **more)
            places = self._consumer.assignment()
            self._consumer.close()
            settings = {"isolation.level": "read_uncommitted", "group.id": "dirty", "enable.partition.eof": True}
            self._consumer = ck.Consumer({**kafka, **settings})
            self._consumer.assign([ck.TopicPartition(p.topic, p.partition, 0) for p in places])

    world.patch("scorer.slot.Follower", Dirty)


def reads_undecided_labels(world: World) -> None:
    def dirty(*args: Any, **more: Any) -> ck.Consumer:
        return open_reader(*args, **{**more, "isolation.level": "read_uncommitted"})

    world.patch("shared.kafka.session.open_reader", dirty)


def loads_unchecked(world: World) -> None:
    def trusting(sound: Callable[..., Any]) -> Callable[..., Any]:
        def check(key: Any, value: Any, headers: Any, bundle: Any) -> Any:
            return sound(key, value, {**headers, "sha256": hashlib.sha256(value).hexdigest().encode()}, bundle)

        return check

    for name in ("check_record", "unpack"):
        world.patch(f"scorer.catalog.{name}", trusting(getattr(catalog, name)))


def serves_the_newest(world: World) -> None:
    def newest(self: catalog.Catalog) -> str:
        return max(["v1", *self._digest], key=lambda version: int(version[1:]))

    world.patch("scorer.catalog.Catalog._wanted", newest)


def passes_one_over(_: World) -> type[Session]:
    class PassesOver(Session):
        def take(self, most: int, timeout_s: float) -> list[Taken]:
            return [r for r in super().take(most, timeout_s) if r.key != b"b0005" or "predictions" not in r.topic]

    return PassesOver


# What is said


def _two_adapters(_: World, outs: list[Out]) -> list[Out]:
    def mix(body: dict[str, Any]) -> None:
        half = len(body["probability"]) // 2
        body["probability"][half:] = body["shadow_probability"][half:]  # the first version's own answers

    return _edited(outs, "predictions", mix)


def _letter_for_a_good_one(world: World, outs: list[Out]) -> list[Out]:
    letters = []
    for out in _of(outs, "predictions"):
        source = json.loads(out.value or b"")["source"]
        headers = {f"source.{k}": str(v) for k, v in source.items()} | {"reason": "no mood", "service": "scorer"}
        letters.append(Out(world.topic("dead-letters"), "/".join(map(str, source.values())), b"lost", headers))
    return [*_but(_but(outs, "predictions"), "conflicts"), *letters]


def _cut_letters(_: World, outs: list[Out]) -> list[Out]:
    return [o._replace(value=(o.value or b"")[:-1]) if o.topic.endswith(".dead-letters") else o for o in outs]


def _strange_parent(_: World, outs: list[Out]) -> list[Out]:
    return [o._replace(headers={**o.headers, "parent": "v77"}) if o.topic.endswith(".adapters") else o for o in outs]


def _finished(out: Out) -> bool:
    return b'"heal-finished"' in (out.value or b"")


def _rolled_back(world: World, outs: list[Out]) -> list[Out]:
    made = [o for o in _of(outs, "control") if o.key == "active" and json.loads(o.value or b"")["version"] != "v1"]
    if not made:
        return outs
    was, at = json.loads(made[-1].value or b""), "2026-01-01T00:00:00Z"
    back = Control(setting="active", version="v1", previous=was["version"], at=at, by="monitor", reason="mean F1 fell")
    said = {"kind": "rolled-back", "from_version": was["version"], "to_version": "v1", "at": at, "service": "monitor",
            "message": "rolled back", "f1": 0.1, "accuracy": 0.1, "batch_id": was["batch_id"]}  # fmt: skip
    return [
        *outs,
        Out(world.topic("control"), "active", encode(back)),
        Out(world.topic("events"), "monitor", encode(said)),
    ]


MUTANTS = [
    Mutant("offsets committed before the answers", "answers", on.killed("scorer"), _session("scorer", offsets_first)),
    Mutant("answers committed before the offsets", "answers", on.killed("scorer"), _session("scorer", offsets_after)),
    Mutant("dead letter outside the transaction", "answers", on.killed("scorer"),
           _session("scorer", _outside("dead-letters"))),
    Mutant("random transactional.id", OPEN, on.killed("scorer", LeftOpen), _session("scorer", random_id)),
    Mutant("scorer reads control read_uncommitted", "versions", on.undecided_control, reads_undecided_control),
    Mutant("monitor reads labels read_uncommitted", "metrics", on.undecided_labels, reads_undecided_labels),
    Mutant("adapter loaded without its checksum", "probabilities", on.forged, loads_unchecked),
    Mutant("state outside the transaction", "metrics", on.killed("monitor"), _session("monitor", _outside("state"))),
    Mutant("an abort is ignored", "answers", on.aborted, _session("scorer", ignores_abort)),
    Mutant("adapters swapped inside a batch", "probabilities", on.healing, _answers("scorer", _two_adapters)),
    Mutant("last batch dropped at SIGTERM", "answers", on.stopped, _session("scorer", drops_the_last)),
    Mutant("double activation", "once", on.healing,
           _answers("monitor", lambda _, outs: [*outs, *(o for o in _of(outs, "control") if o.key == "active")])),
    Mutant("answered twice", "answers", on.plain, _answers("scorer", lambda _, o: [*o, *_of(o, "predictions")])),
    Mutant("conflicts left out", "derived", on.healing, _answers("scorer", lambda _, outs: _but(outs, "conflicts"))),
    Mutant("serves the newest adapter, active or not", "versions", on.unasked, serves_the_newest),
    Mutant("a good batch becomes a dead letter", "contents", on.plain, _answers("scorer", _letter_for_a_good_one)),
    Mutant("dead letters lose a byte", "contents", on.plain, _answers("scorer", _cut_letters)),
    Mutant("heal without outcome", "outcomes", on.healing,
           _answers("healer", lambda _, outs: [o for o in _but(outs, "adapters") if not _finished(o)])),
    Mutant("two outcomes of a heal", "outcomes", on.healing,
           _answers("healer", lambda _, outs: [*outs, *(o for o in outs if _finished(o))])),
    Mutant("adapter of an unknown parent", "adapters", on.healing, _answers("healer", _strange_parent)),
    Mutant("a prediction passed over by the monitor", "metrics", on.plain, _session("monitor", passes_one_over)),
    Mutant("a lift that flatters", "metrics", on.healing, _answers("monitor", lambda _, outs: _edited(
        outs, "metrics", lambda b: b.update(acc_lift=None if b["acc_lift"] is None else b["acc_lift"] + 0.01)))),
    Mutant("rolled back without a cause", "causes", on.healing, _answers("monitor", _rolled_back)),
    Mutant("a heal asked for without its labels", "causes", on.healing,
           _answers("monitor", lambda _, outs: _edited(outs, "heal-requests", lambda b: b.update(labels=[])))),
]  # fmt: skip
