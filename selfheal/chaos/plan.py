"""The schedule of a chaos run, drawn from its seed. Pure: the same arguments give the same schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.crash import CRASH_POINTS
from shared.errors import OperatorError

Kind = Literal[
    "kill",  # SIGKILL at a moment of chance
    "crash",  # SIGKILL, started again with a crash point armed, which then kills it
    "term",  # SIGTERM; started again when it has ended
    "pause",  # SIGSTOP for longer than all time-outs, then SIGCONT
    "zombie",  # the same, and a successor of the same slot is at work when it wakes up
    "double",  # a second process of the same slot, while the first one runs
    "broker-restart",
    "broker-kill",  # SIGKILL of the only broker, then a start
    "node-kill",  # SIGKILL of one of three brokers, back after a while
    "leader-kill",  # of the one that leads a partition of predictions
    "disk-full",  # not a byte more can be written, until the broker has ended by itself
    "grow",  # more partitions for transactions
]
SERVICES = ("producer", "scorer", "healer", "monitor")
SESSIONS = ("scorer", "healer", "monitor")  # the services that consume in transactions
QUICK = ("scorer", "monitor")
# With one of these a kill comes when the broker holds the transaction open. After begin alone it knows of none yet.
INSIDE = frozenset(
    {
        "session.between-records", "session.after-produce", "session.after-offsets", "session.in-commit",
        "healer.between-adapter-and-event", "monitor.between-control-and-state", "monitor.after-state",
    }
)  # fmt: skip
MINUTES_MIN = 1.5
WARM_UP_S, TAIL_S = 4.0, 20.0
HEALER_SHARED = 3  # a healer has to load PyTorch: with more it would never heal
EVERY_S = 4.2  # between two acts, on average
# Longer than session.timeout.ms and transaction.timeout.ms (10 s); the broker looks for the latter every 10 s.
PAUSE_S = (12.0, 22.0)
DOWN_S = (2.0, 8.0)
# Passings of a point that an armed process may live through. These come once in a life, or seldom.
_ONCE = frozenset(
    {"session.after-fencing", "monitor.before-state-read", "monitor.between-control-and-state", "scorer.before-swap"}
    | {p for p in CRASH_POINTS if p.startswith("healer.")}
)
_HEALER_ONCE = "session.after-offsets"  # a healer says that it started without any; then it is asked once

_BROKERS = ("broker-restart", "broker-kill", "node-kill", "leader-kill", "disk-full")
_LONG = ("pause", "zombie", "double")


@dataclass(frozen=True)
class Act:
    """at_s: from the begin of the schedule. slot: of the service's replica. point, passing: of a crash. lasts_s: of a
    pause, or how long a broker is down. node: from 1, the broker; 0 where the leader is meant."""

    at_s: float
    kind: Kind
    service: str = ""
    slot: str = ""
    point: str = ""
    passing: int = 1
    lasts_s: float = 0.0
    node: int = 0

    def __str__(self) -> str:
        who = f"{self.service}-{self.slot}" if self.service else f"node {self.node}" if self.node else ""
        where = f"at {self.point}:{self.passing}" if self.point else f"for {self.lasts_s:.0f} s" if self.lasts_s else ""
        return " ".join(filter(None, (self.kind, who, where)))


def schedule(seed: int, minutes: float, *, brokers: int = 1, scorers: int = 2) -> list[Act]:
    """What is done, in the order of its time. Every crash point is in it, and every kind of fault that so many brokers
    allow; the longer it is, the more services each point is tried in. Raises OperatorError: too short for all that."""
    if minutes < MINUTES_MIN:
        raise OperatorError(f"--minutes {minutes:g}: every crash point takes {MINUTES_MIN:g} or more")
    rng = random.Random(f"selfheal chaos {seed}")
    span = minutes * 60 - WARM_UP_S - TAIL_S
    must = _must(rng, brokers, scorers)
    rest = _rest(rng, brokers, scorers, {(a.service, a.point) for a in must})
    wanted = must + rest[: max(0, int(span / EVERY_S) - len(must))]
    while len(wanted) * EVERY_S < span:
        wanted += _rest(rng, brokers, scorers, set())
    wanted = wanted[: max(len(must), int(span / EVERY_S))]
    rng.shuffle(wanted)
    wanted = _long_ones_first(wanted, rng)
    step = span / len(wanted)
    return [
        Act(**{**vars(act), "at_s": round(WARM_UP_S + i * step + rng.uniform(0, step / 2), 1)})
        for i, act in enumerate(wanted)
    ]


def _must(rng: random.Random, brokers: int, scorers: int) -> list[Act]:
    """Each point in one service, each signal for each service, each kind of fault once."""
    # Scorers share what is done to them, and are soon back; a healer has to load PyTorch.
    shared = [p for p in CRASH_POINTS if len(services_of(p)) > 1]
    takers = (["scorer", "scorer", "scorer", "monitor"] * len(shared))[: len(shared)]
    rng.shuffle(takers)
    acts = [_crash(rng, point, service, scorers) for point, service in zip(shared, takers, strict=True)]
    acts += [_crash(rng, p, services_of(p)[0], scorers) for p in CRASH_POINTS if p not in shared]
    acts += [_act(rng, "term", service, scorers) for service in SERVICES]
    acts += [_act(rng, "double", "scorer", scorers), _act(rng, "double", "monitor", scorers)]
    acts += [_act(rng, "zombie", rng.choice(QUICK), scorers), _act(rng, "pause", rng.choice(SERVICES), scorers)]
    acts.append(Act(0.0, "grow"))
    return acts + [_broken(rng, kind, brokers) for kind in broker_faults(brokers)]


def _rest(rng: random.Random, brokers: int, scorers: int, had: set[tuple[str, str]]) -> list[Act]:
    """More of it, in services that have not had it yet; healers get a few of the points that all share."""
    few = rng.sample([p for p in CRASH_POINTS if len(services_of(p)) > 1], HEALER_SHARED)
    acts = [
        _crash(rng, point, service, scorers)
        for point in CRASH_POINTS
        for service in services_of(point)
        if (service, point) not in had and (service != "healer" or point in few or len(services_of(point)) == 1)
    ]
    acts += [_act(rng, "kill", rng.choice(("scorer", service)), scorers) for service in SERVICES]
    acts += [_act(rng, "zombie", rng.choice(SESSIONS), scorers), _act(rng, "pause", rng.choice(SERVICES), scorers)]
    acts += [_act(rng, "term", rng.choice(SERVICES), scorers), _broken(rng, broker_faults(brokers)[-1], brokers)]
    rng.shuffle(acts)
    return acts


def services_of(point: str) -> Sequence[str]:
    """The services in which a crash point can be passed."""
    room = point.partition(".")[0]
    return SESSIONS if room == "session" else (room,)


def broker_faults(brokers: int) -> tuple[Kind, ...]:
    """What can be done to so many brokers without losing what they hold."""
    killed: tuple[Kind, ...] = ("broker-kill",) if brokers == 1 else ("node-kill", "leader-kill")
    return ("broker-restart", "disk-full", *killed)


def _crash(rng: random.Random, point: str, service: str, scorers: int) -> Act:
    once = point in _ONCE or (service == "healer" and point == _HEALER_ONCE)
    most = 1 if once else 2 if service == "healer" else 6
    return Act(0.0, "crash", service, _slot(rng, service, scorers), point, rng.randint(1, most))


def _act(rng: random.Random, kind: Kind, service: str, scorers: int) -> Act:
    lasts_s = round(rng.uniform(*PAUSE_S)) if kind in ("pause", "zombie") else 0.0
    return Act(0.0, kind, service, _slot(rng, service, scorers), lasts_s=lasts_s)


def _broken(rng: random.Random, kind: Kind, brokers: int) -> Act:
    node = rng.randint(1, brokers) if kind == "node-kill" else 0
    return Act(0.0, kind, lasts_s=round(rng.uniform(*DOWN_S)), node=node)


def _slot(rng: random.Random, service: str, scorers: int) -> str:
    return str(rng.randrange(scorers)) if service == "scorer" else "0"


def _long_ones_first(acts: list[Act], rng: random.Random) -> list[Act]:
    """What takes its victim away for long must not come last, or the run would have to wait for it."""
    last = len(acts) * 2 // 3
    early, kept = acts[:last], [a for a in acts[last:] if a.kind not in _LONG]
    for act in (a for a in acts[last:] if a.kind in _LONG):
        early.insert(rng.randrange(len(early) + 1), act)
    return _apart(early + kept)


def _apart(acts: list[Act]) -> list[Act]:
    """What is done to brokers comes at even distances, and not last: all services are down with the only one."""
    broken = [a for a in acts if a.kind in _BROKERS]
    others = [a for a in acts if a.kind not in _BROKERS]
    for i, act in enumerate(broken):
        others.insert(int(len(acts) * (i + 0.7) / (len(broken) + 0.6)), act)
    return others
