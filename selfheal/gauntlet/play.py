"""Every scenario on many seeds, in-process: the same pure functions, without Kafka."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from healer.knowledge import Knowledge
from monitor.detect import threshold
from producer.generator import Generator
from producer.scenarios import CLEAN, SCENARIOS
from selfheal.gauntlet.run import Row, run
from selfheal.gauntlet.summary import Figures, figures
from selfheal.gauntlet.world import DRIFTED, scenario
from selfheal.training import train
from shared.profile import profile_of

NAMES = tuple(n for n in SCENARIOS if n != "reference")
PROCESSES = 2


def play(
    seeds: Sequence[int], names: Sequence[str] = NAMES, *, processes: int = PROCESSES,
    on_seed: Callable[[int], None] | None = None,
) -> dict[str, Figures]:  # fmt: skip
    """Every scenario on every seed. Each seed trains its own bundles (3 s), in its own process. on_seed hears each
    seed that is done."""
    streams: dict[str, list[list[Row]]] = {name: [] for name in names}
    with ProcessPoolExecutor(processes) as pool:
        for seed, found in zip(seeds, pool.map(_seed, seeds, [tuple(names)] * len(seeds)), strict=True):
            for name, rows in found.items():
                streams[name].append(rows)
            if on_seed is not None:
                on_seed(seed)
    return {name: figures(name, rows) for name, rows in streams.items()}


def _seed(seed: int, names: Sequence[str]) -> dict[str, list[Row]]:
    """All scenarios of one seed; those that share a generator share a bundle."""
    known: dict[tuple[type[Generator], Generator], tuple[Knowledge, float]] = {}
    out = {}
    for name in names:
        scene = scenario(name)
        key = type(scene.generator), scene.generator
        if key not in known:
            with tempfile.TemporaryDirectory() as folder:
                knowledge = Knowledge(profile_of(train(Path(folder), seed=seed, generator=scene.generator)))
            known[key] = knowledge, threshold(knowledge.profile)
        out[name] = run(scene, seed, *known[key], CLEAN + DRIFTED)[0]
    return out
