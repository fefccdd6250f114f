"""`python -m bench.soak --minutes 30`: does memory grow? The four services and an embedded broker under full load.

The producer sends as fast as it can, a unit error comes and goes, labels come late. RSS is read every few seconds; of
each service the median of the two minutes before minute 5 stands beside that of the last two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from bench import world
from selfheal.broker import EmbeddedBroker
from selfheal.training import train
from shared.kafka import create_topics

PREFIX, EVERY_S, WINDOW_S = "soak", 5.0, 120.0  # a turn swings by 20 MiB, which a few samples do not even out
SETTLED_S = 300.0  # growth counts from here on
LOAD = (
    "--rate", "0", "--seed", "7", "--drift", "unit:V14:10:from=5000,every=20000", "--label-delay", "50",
    "--audit-share", "0.02",
)  # fmt: skip
SERVICES = {"producer": ("produce", *LOAD), "scorer": ("score",), "healer": ("heal",), "monitor": ("monitor",)}
COUNTED = ("transactions", "predictions", "adapters", "events")

Sample = tuple[float, dict[str, float]]  # seconds since the start, MiB by service


def growth(samples: list[Sample], service: str) -> tuple[float, float]:
    """(MiB in the WINDOW_S before SETTLED_S, MiB in the last WINDOW_S), medians. Needs samples in both."""
    end = samples[-1][0]
    early = [rss[service] for at, rss in samples if SETTLED_S - WINDOW_S <= at <= SETTLED_S]
    late = [rss[service] for at, rss in samples if at >= end - WINDOW_S]
    return statistics.median(early), statistics.median(late)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="6 or more: growth counts from minute 5 on")
    parser.add_argument("--out", type=Path, default=Path(".selfheal/bench"), help="folder for soak.json and logs")
    options = parser.parse_args()
    if options.minutes < 6:
        parser.error("--minutes: at least 6, since growth counts from minute 5 on")
    world.end_cleanly()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="selfheal-soak-", dir=options.out) as tmp:
        bundle = Path(tmp) / "bundle"
        train(bundle)
        with EmbeddedBroker(Path(tmp) / "kafka") as broker:
            bootstrap = broker.start()
            create_topics({"bootstrap.servers": bootstrap}, PREFIX)
            samples = _run(bootstrap, bundle, options.out, options.minutes * 60, console)
            counts = {name: sum(world.ends(bootstrap, f"{PREFIX}.{name}").values()) for name in COUNTED}
    found = {service: growth(samples, service) for service in SERVICES}
    (options.out / "soak.json").write_text(json.dumps({"records": counts, "samples": samples, "growth": found}))
    console.print(_table(found, counts, options.minutes))


def _run(bootstrap: str, bundle: Path, out: Path, seconds: float, console: Console) -> list[Sample]:
    """Start all, sample until the time is over. Raises RuntimeError when a service ends before."""
    env = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "MONITOR_POLICY": "guarded", "PYTHONPATH": str(world.ROOT)}
    with contextlib.ExitStack() as stack:
        children = {}
        for name in ("monitor", "healer", "scorer", "producer"):
            command = world.selfheal(*SERVICES[name], "--prefix", PREFIX, "--bundle", str(bundle))
            log = out / f"soak-{name}.log"
            log.unlink(missing_ok=True)
            children[name] = stack.enter_context(world.process(command, log, **env))
        began, samples = time.monotonic(), list[Sample]()
        while (at := time.monotonic() - began) < seconds:
            for name, child in children.items():
                if child.poll() is not None:
                    raise RuntimeError(f"{name} ended with {child.returncode}: {out / f'soak-{name}.log'}")
            rss = {name: psutil.Process(child.pid).memory_info().rss / 2**20 for name, child in children.items()}
            samples.append((round(at, 1), {name: round(mib, 1) for name, mib in rss.items()}))
            if len(samples) % 12 == 1:
                told = ", ".join(f"{name} {mib:.0f}" for name, mib in rss.items())
                console.print(f"  {at / 60:4.1f} min: MiB {told}", highlight=False)
            time.sleep(EVERY_S)
    return samples


def _table(found: dict[str, tuple[float, float]], counts: dict[str, int], minutes: float) -> Table:
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    table = Table(title=f"RSS under full load, {minutes:g} minutes", caption=f"records written: {told}")
    for column in ("service", "MiB at 5 min", "MiB at the end", "growth"):
        table.add_column(column, justify="left" if column == "service" else "right")
    for service, (early, late) in found.items():
        table.add_row(service, f"{early:.0f}", f"{late:.0f}", f"{late / early - 1:+.1%}")
    return table


if __name__ == "__main__":
    main()
