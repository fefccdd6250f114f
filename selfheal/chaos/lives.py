"""A victim's lives: that it runs, that the next one has begun, that it is brought back."""

from __future__ import annotations

from selfheal.chaos.steps import Missed, NotBegun, Step, until
from selfheal.chaos.victims import Victim

READY_S = 120.0  # a start of torch on a machine that has other work, and a broker that is down meanwhile
END_S = 30.0
TERM_S = 60.0  # a commit that is under way has 30 s, the client's call 10 more (shared/kafka/watchdog.py)


def runs(victim: Victim) -> Step:
    """Raises NotBegun: another act, on the broker maybe, has not let it come back so far."""
    try:
        yield from until(victim.ready, READY_S, f"{victim.name} runs")
    except Missed as exc:
        raise NotBegun(str(exc)) from exc


def next_life(victim: Victim, before: int | None) -> Step:
    """Until the supervisor has started it again. before: the process id of the life that ended."""
    yield from until(lambda: victim.child.pid not in (None, before), READY_S, f"{victim.name} is started again")


def revived(victim: Victim) -> Step:
    """By the supervisor by itself, or where it holds the end for good, because we tell it to."""
    yield from until(lambda: victim.child.over or victim.child.pid is not None, END_S, f"{victim.name} ends")
    if victim.child.over:
        victim.revive()
