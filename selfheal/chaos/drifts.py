"""What the load of a chaos run does to the rows, so that the policy under test heals all the time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from producer.batch import Batch
from producer.drift_text import parse
from producer.sources import Synthetic
from shared.records import Policy

# Errors of a feed that come and go, all of which can be undone although a few rows in a hundred do not follow them:
# units, the order of columns, an offset. What the guard has healed once it only switches to when it comes again.
LAWS = ("unit:V14:10", "swap:V14:V9", "unit:V14:100", "shift:V14:-2.2")


@dataclass(frozen=True)
class Drifting:
    """Of every `cycle` batches the last `drifted` follow a law, each time the next one; rows and drifted_rows: of a
    batch in either state."""

    laws: tuple[str, ...]
    cycle: int
    drifted: int
    rows: int = 20
    drifted_rows: int = 20

    def law(self, k: int) -> str | None:
        """Of batch k, from 1; None: nothing has drifted."""
        turn, at = divmod(k, self.cycle)
        return self.laws[turn % len(self.laws)] if at >= self.cycle - self.drifted else None


# guarded: at 12 batches a second 15 s without and 25 s with a drift. It takes 1 s to see one and 3 to heal it, where
# monitor and healer live; a monitor that was away for a while reads the partitions one after the other, and sees short
# drifts mixed.
DRIFTING: dict[Policy, Drifting] = {
    "guarded": Drifting(LAWS, cycle=480, drifted=300),
    "reference": Drifting(("shift:V14:-2.2:class=normal",), cycle=40, drifted=8, drifted_rows=60),
}
# The pipeline's own producer knows nothing of these drifts: where laws are told apart, its share of the rows is small.
PRODUCER_ROWS: dict[Policy, int] = {"guarded": 3, "reference": 30}


class Stream:
    """The batches of a load: batch(k) is the same for the same seed."""

    def __init__(self, seed: int, policy: Policy) -> None:
        drifting = DRIFTING[policy]
        self._drifting = drifting
        self._clean = Synthetic(seed=seed, rows=drifting.rows)
        self._drifted = {
            law: Synthetic(seed=seed, rows=drifting.drifted_rows, steps=tuple(parse([law]))) for law in drifting.laws
        }

    def batch(self, k: int) -> Batch:
        """Batch k, from 1."""
        law = self._drifting.law(k)
        return (self._clean if law is None else self._drifted[law]).batch(k)
