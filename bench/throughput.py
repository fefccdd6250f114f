"""Messages a second of one exactly-once scorer, beside a ceiling and a Quix Streams application, on one topic.

Each program reads the same backlog; the rounds are interleaved, so that a slow minute of the machine hits all alike.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench import world

QUIX = ("quix-plain", "quix-tuned")  # quix_app.py says what they are


def run(
    bootstrap: str, prefix: str, bundle: Path, work: Path, quix_python: Path | None, *, messages: int, rounds: int,
    scorers: int = 2, say: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """name -> rate, ratio (of the ceiling), and for the scorer rss_mib and start_s. Topics of prefix must exist."""
    topic = f"{prefix}.transactions"
    say(f"filling {topic} with {messages:,} messages of {world.ROWS} rows")
    world.fill(bootstrap, topic, messages)
    outs = {name: f"{prefix}.bench-{name}" for name in ("ceiling", *QUIX)}
    for out in (*outs.values(), *(f"{outs[name]}-{more}" for name in QUIX for more in ("conflicts", "dead-letters"))):
        world.make_topic(bootstrap, out)
    world.stamp_by_broker(bootstrap, f"{prefix}.predictions")
    rates: dict[str, list[float]] = {}
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
            rate, mib, start = _measure(bootstrap, topic, out, group, commands, work / f"{name}-{turn}.log", messages)
            rates.setdefault(name, []).append(rate)
            if name == "scorer":
                rss.append(mib)
                starts.append(start)
            say(f"  round {turn + 1}: {name:10} {rate:9,.0f} messages/s")
    ceiling = statistics.median(rates["ceiling"])
    table = {n: {"rate": statistics.median(r), "ratio": statistics.median(r) / ceiling} for n, r in rates.items()}
    table["scorer"] |= {"rss_mib": statistics.median(rss), "start_s": statistics.median(starts)}
    return table


def _quix(python: Path | None, bootstrap: str, topic: str, out: str, group: str, bundle: Path, name: str) -> list[str]:
    return [str(python), "-m", "bench.quix_app", bootstrap, topic, out, group, str(bundle), name.removeprefix("quix-")]


def _scorer(prefix: str, bundle: Path, slot: int) -> list[str]:
    return world.selfheal("score", "--slot", f"bench{slot}", "--prefix", prefix, "--bundle", str(bundle))


def _measure(
    bootstrap: str, topic: str, out: str, group: str, commands: list[list[str]], log: Path, messages: int
) -> tuple[float, float, float]:
    """(messages/s, RSS in MiB of the first process at the end, seconds from start to the first commit)."""
    before = world.ends(bootstrap, out)
    if world.committed(bootstrap, group, topic):
        world.reset_group(bootstrap, group, topic)
    started = time.monotonic()
    first: list[float] = []

    def done() -> bool:
        count = world.committed(bootstrap, group, topic)
        if count and not first:
            first.append(time.monotonic() - started)
        return count >= messages

    env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PYTHONPATH": str(world.ROOT)}
    children = []
    try:
        for command in commands:
            children.append(world.process(command, log, **env))
        opened = [c.__enter__() for c in children]
        world.wait_for(done, opened[0], log)
        mib = psutil.Process(opened[0].pid).memory_info().rss / 2**20
    finally:
        for child in children:
            child.__exit__(None, None, None)
    count, seconds = world.span_s(bootstrap, out, before)
    if count != messages:
        raise RuntimeError(f"{count} predictions for {messages} messages: {log}")
    return count / max(seconds, 1e-3), mib, first[0]
