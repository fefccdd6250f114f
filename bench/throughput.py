"""Messages a second of one exactly-once scorer, beside a ceiling and a Quix Streams application, on one topic.

Each program reads the same backlog; the rounds are interleaved, so that a slow minute of the machine hits all alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from bench import world

QUIX = ("quix-plain", "quix-tuned")  # quix_app.py says what they are


class Measured(NamedTuple):
    """rate: messages/s. cpu_us: of all its processes, a message, after the first commit; on a busy machine it says
    more than the rate. rss_mib: of the first process at the end. start_s: from its start to the first commit."""

    rate: float
    cpu_us: float
    rss_mib: float
    start_s: float


def run(
    bootstrap: str, prefix: str, bundle: Path, work: Path, quix_python: Path | None, *, messages: int, rounds: int,
    scorers: int = 2, say: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """name -> rate, ratio (of the ceiling), cpu_us (of its processes, a message), and for the scorer rss_mib and
    start_s. Topics of prefix must exist."""
    topic = f"{prefix}.transactions"
    say(f"filling {topic} with {messages:,} messages of {world.ROWS} rows")
    world.fill(bootstrap, topic, messages)
    outs = {name: f"{prefix}.bench-{name}" for name in ("ceiling", *QUIX)}
    for out in (*outs.values(), *(f"{outs[name]}-{more}" for name in QUIX for more in ("conflicts", "dead-letters"))):
        world.make_topic(bootstrap, out)
    world.stamp_by_broker(bootstrap, f"{prefix}.predictions")
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    rss: list[float] = []
    starts: list[float] = []
    for turn in range(rounds):
        for name in ("ceiling", "scorer", f"{scorers} scorers", *QUIX):
            if name in QUIX and quix_python is None:
                continue
            group = f"{prefix}.scorer" if "scorer" in name else f"{prefix}.bench-{name}-{turn}"
            out = f"{prefix}.predictions" if "scorer" in name else outs[name]
            commands = {
                "ceiling": [[sys.executable, "-m", "bench.ceiling", bootstrap, topic, outs["ceiling"], group, "2100"]],
                **{n: [_quix(quix_python, bootstrap, topic, outs[n], group, bundle, n)] for n in QUIX},
                "scorer": [_scorer(prefix, bundle, 0)],
                f"{scorers} scorers": [_scorer(prefix, bundle, i) for i in range(scorers)],
            }[name]
            found = _measure(bootstrap, topic, out, group, commands, work / f"{name}-{turn}.log", messages)
            rates.setdefault(name, []).append(found.rate)
            cpu.setdefault(name, []).append(found.cpu_us)
            if name == "scorer":
                rss.append(found.rss_mib)
                starts.append(found.start_s)
            say(f"  round {turn + 1}: {name:10} {found.rate:9,.0f} messages/s {found.cpu_us:6,.0f} us CPU each")
    ceiling = statistics.median(rates["ceiling"])
    table = {
        n: {"rate": statistics.median(r), "ratio": statistics.median(r) / ceiling, "cpu_us": statistics.median(cpu[n])}
        for n, r in rates.items()
    }
    table["scorer"] |= {"rss_mib": statistics.median(rss), "start_s": statistics.median(starts)}
    return table


def _quix(python: Path | None, bootstrap: str, topic: str, out: str, group: str, bundle: Path, name: str) -> list[str]:
    return [str(python), "-m", "bench.quix_app", bootstrap, topic, out, group, str(bundle), name.removeprefix("quix-")]


def _scorer(prefix: str, bundle: Path, slot: int) -> list[str]:
    return world.selfheal("score", "--slot", f"bench{slot}", "--prefix", prefix, "--bundle", str(bundle))


def _measure(
    bootstrap: str, topic: str, out: str, group: str, commands: list[list[str]], log: Path, messages: int
) -> Measured:
    before = world.ends(bootstrap, out)
    if world.committed(bootstrap, group, topic):
        world.reset_group(bootstrap, group, topic)
    started = time.monotonic()
    first: list[tuple[float, int, float]] = []  # first commit seen: seconds from the start, messages, CPU seconds
    opened: list[subprocess.Popen[bytes]] = []

    def done() -> bool:
        count = world.committed(bootstrap, group, topic)
        if count and not first:
            first.append((time.monotonic() - started, count, _cpu_s(opened)))
        return count >= messages

    env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PYTHONPATH": str(world.ROOT)}
    children = []
    try:
        for command in commands:
            children.append(world.process(command, log, **env))
        opened += [c.__enter__() for c in children]
        world.wait_for(done, opened[0], log)
        [(start_s, already, cpu_s)] = first
        cpu_s = _cpu_s(opened) - cpu_s
        mib = psutil.Process(opened[0].pid).memory_info().rss / 2**20
    finally:
        for child in children:
            child.__exit__(None, None, None)
    count, seconds = world.span_s(bootstrap, out, before)
    if count != messages:
        raise RuntimeError(f"{count} predictions for {messages} messages: {log}")
    return Measured(count / max(seconds, 1e-3), cpu_s / max(messages - already, 1) * 1e6, mib, start_s)


def _cpu_s(children: list[subprocess.Popen[bytes]]) -> float:
    """User and system time so far."""
    times = [psutil.Process(child.pid).cpu_times() for child in children]
    return float(sum(t.user + t.system for t in times))
