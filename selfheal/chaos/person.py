"""What a person may do while things break: ask for a heal, order that a version is served. It makes those crash points
come along that would else wait for a drift and a monitor that is alive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from selfheal.chaos.steps import NotBegun
from selfheal.chaos.watch import Watch
from selfheal.control import pin, versions
from shared.errors import SelfhealError
from shared.kafka import Out, Writer
from shared.records import FIRST_VERSION, HealRequest, Policy, encode
from shared.telemetry import wall_clock
from shared.topics import topic_name

ASK_S = 30.0
BLOCKS, BLOCK = 4, 6  # of a diagnosis: batches of 20 rows


class Person:
    """policy: under test. bundle: its hash. Every method blocks, until Kafka answers or says that it will not."""

    def __init__(self, kafka: Mapping[str, Any], prefix: str, policy: Policy, bundle: str, watch: Watch) -> None:
        self._kafka, self._prefix, self._bundle, self._watch = dict(kafka), prefix, bundle, watch
        self._guarded = policy == "guarded"
        self._asked, self._ordered = itertools.count(1), itertools.count(1)

    def may_ask(self) -> bool:
        """Whether enough was scored so far."""
        return len(self._watch.newest) >= BLOCKS * BLOCK

    def ask_for_a_heal(self, point: str) -> None:
        """Of the newest batches, by the policy under test; where an adapter is wanted for certain, as published, which
        always ends with two. Once may_ask(). Raises NotBegun: Kafka does not answer."""
        guarded = self._guarded and point not in ("healer.between-adapter-and-event", "scorer.before-swap")
        batches = list(self._watch.newest)[-BLOCKS * BLOCK :] if guarded else list(self._watch.newest)[-1:]
        request = HealRequest(
            request_id=f"chaos-{next(self._asked)}", policy="guarded" if guarded else "reference", reason="chaos",
            base_version=FIRST_VERSION, bundle=self._bundle, batch_id="chaos", at=wall_clock(), transactions=batches,
            blocks=[BLOCK] * BLOCKS if guarded else [], parameters={"first_batch_idx": 1.0} if guarded else {},
        )  # fmt: skip
        out = Out(topic_name("heal-requests", self._prefix), request.request_id, encode(request))
        try:
            Writer(self._kafka, "chaos-person", budget_s=ASK_S).publish([out])
        except SelfhealError as exc:
            raise NotBegun(f"a heal could not be asked for: {exc}") from exc

    def pin_another(self) -> None:
        """The newest adapter and the bundle's own by turns: one of both is not what is served now. Raises NotBegun."""
        try:
            known = versions(self._kafka, self._prefix)
            pin(self._kafka, self._prefix, known[-1] if next(self._ordered) % 2 else FIRST_VERSION, "chaos")
        except SelfhealError as exc:
            raise NotBegun(f"no version could be ordered: {exc}") from exc

    def unpin(self) -> None:
        """Raises NotBegun."""
        try:
            pin(self._kafka, self._prefix, None, "chaos")
        except SelfhealError as exc:
            raise NotBegun(f"the order could not be taken back: {exc}") from exc
