"""What to do about a service that ended: pure, so that every case can be tested without a process."""

from __future__ import annotations

from typing import NamedTuple

FIRST_S, LONGEST_S, HEALTHY_S = 0.5, 30.0, 60.0
OPERATOR, FENCED = 2, 4  # exit codes of shared.errors


class Verdict(NamedTuple):
    """after_s: start again that many seconds from now; None: leave it ended. attempt: restarts in a row."""

    after_s: float | None
    attempt: int
    why: str


def verdict(exit_code: int, ran_s: float, attempt: int) -> Verdict:
    """exit_code: negative for a signal, as in subprocess. attempt: restarts in a row so far.

    0.5 s, doubling to 30 s; a run of 60 s counts as healthy and starts the count anew. What a person must change ends a
    service at its first start alone: one that worked before may only have met a broker that was away.
    """
    if exit_code == 0:
        return Verdict(None, attempt, "ended by itself")
    if exit_code == FENCED:
        return Verdict(None, attempt, "another process runs under its name; it does not come back")
    if exit_code == OPERATOR and attempt == 0 and ran_s < HEALTHY_S:
        return Verdict(None, attempt, "a person must change something")
    so_far = 0 if ran_s >= HEALTHY_S else attempt
    # The exponent is bounded so that a service that fails for days does not make a number too large.
    after_s = min(LONGEST_S, FIRST_S * 2.0 ** min(so_far, 10))
    how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return Verdict(after_s, so_far + 1, how)
