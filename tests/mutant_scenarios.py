"""What happens to the small pipeline. With no fault in any service, the audit is green after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from confluent_kafka import Producer
from mutant_world import Killed, World

from shared.adapters import first_adapter, pack
from shared.errors import Fatal, Rewind
from shared.kafka import Out, Session
from shared.records import Control, encode
from shared.telemetry import wall_clock

TRY_S = 3.0  # for what a sound service does not do
STRANGE = "v9"
Apply = Callable[[World], None]
Scenario = Callable[[World, Apply], None]
Commit = Callable[[], None] | None


class Struck(Session):
    """Sound, but something happens in its third transaction with an answer in it, in the first life only."""

    at = ("predictions", "metrics", "adapters")
    lives = 0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        type(self).lives += 1
        self._left = 3

    def strikes(self, outputs: Iterable[Out]) -> bool:
        self._left -= any(out.topic.endswith(self.at) for out in outputs)
        struck = self._left == 0 and type(self).lives == 1
        self._left -= struck
        return struck


class Mortal(Struck):
    def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
        outs = list(outputs)
        super().commit(outs, before_commit=kill if self.strikes(outs) else before_commit)


class Flaky(Struck):
    def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
        outs = list(outputs)
        super().commit(outs, before_commit=refuse if self.strikes(outs) else before_commit)


class LeftOpen(Struck):
    """Killed as Mortal is, and its transaction stays open: nobody aborts it but a successor, or its time-out."""

    def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
        outs = list(outputs)
        if struck := self.strikes(outs):
            self._next.clear()  # killed before the offsets: with them pending, the broker keeps a successor waiting
        super().commit(outs, before_commit=vanish if struck else before_commit)


def kill() -> None:
    raise Killed


def refuse() -> None:
    raise Rewind("as if the broker had refused it")


def vanish() -> None:
    raise Fatal("killed with the transaction open")


def plain(world: World, apply: Apply) -> None:
    """Batches and junk."""
    apply(world)
    world.start("scorer", "monitor")
    world.feed(14, junk_every=4)
    world.settled()


def healing(world: World, apply: Apply) -> None:
    """A drift, heals, and what is served after."""
    apply(world)
    world.start("scorer", "healer", "monitor")
    world.feed(3)
    world.settled()
    for _ in range(3):
        world.feed(2, drifted=True)
        world.settled()


def killed(room: str, kind: type[Struck] = Mortal) -> Scenario:
    """A service is killed in the middle, and started again."""

    def scenario(world: World, apply: Apply) -> None:
        fresh = type(kind.__name__, (kind,), {})  # counts its own lives
        world.sabotage(room, fresh)
        apply(world)
        more = {"SELFHEAL_TRANSACTION_TIMEOUT_MS": 60_000} if kind is LeftOpen else {}
        world.start(*{"scorer", "monitor"} - {room})
        world.start(room, **more)
        end = time.monotonic() + TRY_S * 5
        while not world.services[room].dead() and time.monotonic() < end:
            world.feed(5, junk_every=3)
            world.settled(0.3)
        world.until_dead(room)
        world.start(room, **more)
        world.feed(5)
        world.settled(TRY_S * 3)

    return scenario


def aborted(world: World, apply: Apply) -> None:
    """The broker refuses a transaction of the scorer."""
    world.sabotage("scorer", type("Flaky", (Flaky,), {}))
    apply(world)
    world.start("scorer", "monitor")
    for _ in range(5):
        world.feed(4)
        world.settled()


def asked(world: World) -> type[Struck]:
    """Sound; asked to end while it is about to commit."""

    class Asked(Struck):
        def commit(self, outputs: Iterable[Out], *, before_commit: Commit = None) -> None:
            outs = list(outputs)
            if self.strikes(outs):
                world.services["scorer"].ask()
            super().commit(outs, before_commit=before_commit)

    return Asked


def stopped(world: World, apply: Apply) -> None:
    """The scorer is asked to end in the middle of a batch, and another one goes on."""
    world.sabotage("scorer", asked(world))
    apply(world)
    world.start("scorer", "monitor")
    end = time.monotonic() + TRY_S * 5
    while not world.services["scorer"].dead() and time.monotonic() < end:
        world.feed(5)
        world.settled(0.3)
    world.until(world.services["scorer"].dead, "the scorer ends")
    world.heal("scorer")
    world.start("scorer")
    world.feed(5)
    world.settled()


def forged(world: World, apply: Apply) -> None:
    """A stranger publishes an adapter whose bytes are not those of its checksum, and pins it."""
    apply(world)
    world.start("scorer", "monitor")
    world.feed(3)
    world.settled()
    honest, headers = _adapter(world, 1.5)
    bytes_of_another = _adapter(world, 3.0)[0]
    assert honest != bytes_of_another
    world.tell([Out(world.topic("adapters"), STRANGE, bytes_of_another, headers), _order(world, "pin", STRANGE)])
    _until_served(world, STRANGE, lambda: world.watch.kinds["adapter-rejected"] > 0)
    world.feed(3)
    world.settled()


def unasked(world: World, apply: Apply) -> None:
    """Somebody publishes a sound adapter, which no control record makes active."""
    apply(world)
    world.start("scorer", "monitor")
    world.feed(3)
    world.settled()
    world.tell([Out(world.topic("adapters"), STRANGE, *_adapter(world, 1.5))])
    _until_served(world, STRANGE)
    world.feed(3)
    world.settled()


def undecided_control(world: World, apply: Apply) -> None:
    """A control record that is written, read by whoever reads too early, and aborted."""
    apply(world)
    world.start("scorer", "monitor")
    world.feed(3)
    world.tell([Out(world.topic("adapters"), STRANGE, *_adapter(world, 1.5))])
    world.settled()
    with _aborted(world) as producer:
        order = _order(world, "active", STRANGE)
        producer.produce(order.topic, order.value, order.key)
        assert producer.flush(20) == 0
        _until_served(world, STRANGE)
    world.feed(3)
    world.settled()


def undecided_labels(world: World, apply: Apply) -> None:
    """Wrong labels in a transaction that is aborted; then the right ones."""
    apply(world)
    world.start("scorer", "monitor")
    world.feed(2)
    world.settled()
    ids = world.feed(3, labels=False)
    world.settled()
    with _aborted(world) as producer:
        world.answer(ids, flipped=True, producer=producer)
        world.feed(3)
        world.settled(TRY_S)
    world.answer(ids)
    world.settled()


@contextmanager
def _aborted(world: World) -> Iterator[Producer]:
    producer = Producer({**world.kafka, "transactional.id": f"{world.prefix}-stranger"})
    producer.init_transactions(20)
    producer.begin_transaction()
    yield producer
    producer.abort_transaction(20)


def _until_served(world: World, version: str, else_if: Callable[[], object] = lambda: False) -> None:
    """Feed until predictions come by that version, or that is over, or it has had time enough."""
    end = time.monotonic() + TRY_S
    while time.monotonic() < end and not else_if() and version not in world.versions():
        world.feed(1)
        world.settled(0.5)


def _adapter(world: World, logit_shift: float) -> tuple[bytes, dict[str, str]]:
    adapter = msgspec.structs.replace(
        first_adapter(world.bundle), version=STRANGE, parent="v1", logit_shift=logit_shift
    )
    return pack(adapter, request="none", stage="post-heal", summary={}, at=wall_clock())


def _order(world: World, setting: str, version: str) -> Out:
    control = Control(setting=setting, version=version, previous="v1", at=wall_clock(), by="a person", reason="a test")
    return Out(world.topic("control"), setting, encode(control))
