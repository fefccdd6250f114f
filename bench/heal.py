"""One heal of policy guarded, from rows to outcome, over kinds of drift: 2,000 rows of 10 features, and a lesson."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from healer.guarded import Outcome, diagnosed, learned
from healer.knowledge import Knowledge, knowledge_of
from healer.rows import Entry
from producer.drift import generator_at, rows_at
from producer.scenarios import SCENARIOS
from shared import bundle as bundles
from shared.adapters import first_adapter
from shared.records import HealRequest, OffsetRange

ROWS, BLOCKS = 2_000, 10
NAMES = ("S0", "S1", "S4", "S5", "S7", "S8", "S9", "S10", "S12", "S13", "S14")
WANTED_MS = 250.0


def run(folder: Path, *, rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Per kind: median and max over the rounds of the wall clock, and the largest CPU time (what one core needs, also
    on a busy machine), in ms; "first" is the first diagnosis of all, "warm-up" what the healer does at its start."""
    bundle = bundles.load(folder)
    first = first_adapter(bundle)
    known: list[Knowledge] = []
    warm, warm_cpu = _timed(lambda: known.append(knowledge_of(bundle)))
    [knowledge] = known
    table = {"warm-up": {"median_ms": warm, "max_ms": warm, "max_cpu_ms": warm_cpu}}
    say(f"heal: warm-up {warm:.0f} ms")
    for name in NAMES:
        wall, cpu = [], []
        for seed in range(rounds):
            entries = _entries(name, seed)
            request = _request(len(entries), "diagnose")

            def diagnosis(entries: list[Entry] = entries, request: HealRequest = request) -> Outcome:
                return diagnosed(bundle, knowledge, request, entries, first, "v2")

            spent = _timed(diagnosis)
            wall.append(spent[0])
            cpu.append(spent[1])
            if len(table) == 1:
                table["first"] = {"median_ms": spent[0], "max_ms": spent[0], "max_cpu_ms": spent[1]}
        table[name] = {"median_ms": median(wall), "max_ms": max(wall), "max_cpu_ms": max(cpu)}
    entries = _entries("S9", 0, labelled=True)
    lesson = [_timed(lambda: learned(bundle, _request(BLOCKS, "learn"), entries, first, first, "v2"))
              for _ in range(rounds)]  # fmt: skip
    table["lesson"] = {
        "median_ms": median(w for w, _ in lesson), "max_ms": max(w for w, _ in lesson),
        "max_cpu_ms": max(c for _, c in lesson),
    }  # fmt: skip
    return table


def _timed(heal: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and CPU time, ms."""
    wall, cpu = time.perf_counter(), time.process_time()
    heal()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def _entries(name: str, seed: int, *, labelled: bool = False) -> list[Entry]:
    """BLOCKS drifted batches of a scenario, ROWS in all."""
    scene, rng = SCENARIOS[name], np.random.default_rng([seed, 77])
    law, n = generator_at(scene.steps, scene.generator, 40), ROWS // BLOCKS
    entries = []
    for _ in range(BLOCKS):
        rows, y = law.rows(rng, n)
        x = rows_at(scene.steps, law.features, 40, rows, y).astype(np.float32)
        labels = y.astype(np.int8) if labelled else np.full(n, -1, np.int8)
        entries.append(Entry(x, labels, np.full(n, False)))
    return entries


def _request(entries: int, purpose: str) -> HealRequest:
    where = OffsetRange(topic="transactions", partition=0, start=0, end=1)
    return HealRequest(
        request_id="bench", policy="guarded", reason="bench", base_version="v1", bundle="", batch_id="b", at="",
        transactions=[where] * entries, purpose="learn" if purpose == "learn" else "diagnose",
        fresh=1 if purpose == "learn" else 0,
    )  # fmt: skip
