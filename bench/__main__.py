"""`python -m bench`: all benchmarks against one fresh embedded broker; a table on stdout, results.json beside it."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import heal, latency, parts, throughput, world
from selfheal.broker import EmbeddedBroker
from selfheal.training import train
from shared.kafka import create_topics

QUIX = ("quixstreams==3.28.1", "numpy", "orjson", "msgspec", "pysimdjson", "safetensors", "torch")

PARTS_ROUNDS = 80


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="backlog each program works off")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are printed")
    parser.add_argument("--seconds", type=float, default=20, help="of each latency measurement")
    parser.add_argument("--no-quix", action="store_true", help="leave Quix Streams out (it is installed when missing)")
    parser.add_argument("--only", choices=["throughput", "latency", "heal", "parts"], help="one part alone")
    parser.add_argument("--out", type=Path, default=Path(".selfheal/bench"), help="folder for results.json and logs")
    options = parser.parse_args()
    world.end_cleanly()
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    with_quix = not options.no_quix and options.only not in ("latency", "heal", "parts")
    quix = world.environment(Path(".selfheal/bench-venv"), QUIX) if with_quix else None
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="selfheal-bench-") as tmp:
        bundle = Path(tmp) / "bundle"
        train(bundle)
        if options.only in (None, "heal"):
            healed = heal.run(bundle, rounds=max(options.rounds, 5), say=console.print)
            results["heal"] = healed
            console.print(_heal_table(healed))
        if options.only in (None, "parts"):
            own = parts.run(bundle, rounds=PARTS_ROUNDS)
            results["parts"] = own
            console.print(_parts_table(own))
        if options.only in ("heal", "parts"):
            return _written(options.out, results, console)
        with EmbeddedBroker(Path(tmp) / "kafka") as broker:
            bootstrap = broker.start()
            for prefix in ("bench-throughput", "bench-latency"):
                create_topics({"bootstrap.servers": bootstrap}, prefix)
            if options.only != "latency":
                table = throughput.run(
                    bootstrap, "bench-throughput", bundle, options.out, quix, messages=options.messages,
                    rounds=options.rounds, say=console.print,
                )  # fmt: skip
                results["throughput"] = table
                console.print(_throughput_table(table))
            if options.only != "throughput":
                found = latency.run(
                    bootstrap, "bench-latency", bundle, options.out, seconds=options.seconds, rounds=options.rounds,
                    say=console.print,
                )  # fmt: skip
                results["latency"] = found
                console.print(_latency_table(found))
    _written(options.out, results, console)


def _written(out: Path, results: dict[str, object], console: Console) -> None:
    (out / "results.json").write_text(json.dumps(results, indent=1))
    console.print(f"results: {out / 'results.json'}")


def _heal_table(rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title=f"one heal of policy guarded, {heal.ROWS:,} rows x 10, at most {heal.WANTED_MS:.0f} ms wanted")
    for column in ("", "median ms", "max ms", "max CPU ms"):
        table.add_column(column, justify="right")
    for name, r in rows.items():
        table.add_row(name, f"{r['median_ms']:.0f}", f"{r['max_ms']:.0f}", f"{r['max_cpu_ms']:.0f}")
    return table


def _parts_table(rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title="the scorer's own work, no Kafka, us CPU a message of 100 rows")
    for column in ("", "least", "median"):
        table.add_column(column, justify="right")
    for name, r in rows.items():
        table.add_row(name, f"{r['least_us']:.1f}", f"{r['median_us']:.1f}")
    return table


def _throughput_table(rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title="exactly once, 100 transactions a message, medians")
    for column in ("program", "messages/s", "of the ceiling", "times quix-plain", "CPU us", "RSS MiB", "start s"):
        table.add_column(column, justify="left" if column == "program" else "right")
    quix = rows.get("quix-plain", {}).get("rate")
    for name, r in rows.items():
        times = f"{r['rate'] / quix:.1f}" if quix else "-"
        rss, start = (f"{r[k]:.{n}f}" if k in r else "" for k, n in (("rss_mib", 0), ("start_s", 1)))
        table.add_row(name, f"{r['rate']:,.0f}", f"{r['ratio']:.3f}", times, f"{r['cpu_us']:.0f}", rss, start)
    return table


def _latency_table(r: dict[str, float]) -> Table:
    table = Table(title="produced -> visible, 50 messages/s")
    for column in ("", "p50 ms", "p99 ms", "times quiet p99", "messages", "heals/s"):
        table.add_column(column, justify="right")
    names = {
        "quiet": "quiet",
        "paced": "during a heal, 2 a second at most",
        "busy": "a core as busy, no heal",
        "unpaced": "heals without a pause",
    }
    for mode, name in names.items():
        p50, p99, messages = (r[f"{mode}_{k}"] for k in ("p50_ms", "p99_ms", "messages"))
        pace = r[f"{mode}_heals"] / r[f"{mode}_seconds"]
        table.add_row(name, f"{p50:.1f}", f"{p99:.1f}", f"{p99 / r['quiet_p99_ms']:.2f}", f"{messages}", f"{pace:.1f}")
    return table


if __name__ == "__main__":
    main()
