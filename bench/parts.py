"""Where the scorer's own time goes: thread CPU per message of each step, without Kafka, the steps interleaved."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import simdjson

from bench import world
from scorer.catalog import Catalog
from scorer.decode import Decoder
from scorer.score import Job, score
from scorer.turn import Targets, answer
from shared import bundle as bundles
from shared.adapters import first_adapter
from shared.forward import Folded, Network, probabilities
from shared.kafka import Taken
from shared.topics import MAX_RECORD_BYTES, TOPICS

MESSAGES = 128
TOGETHER = (16, 32, 64, 128)  # messages to a pass


def run(folder: Path, *, rounds: int) -> dict[str, dict[str, float]]:
    """Per step its least and median CPU time over the rounds, in µs a message: the least is what it takes where nobody
    disturbs."""
    steps = _steps(folder)
    gc.collect()
    gc.freeze()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.thread_time()
            step()
            taken[name].append((time.thread_time() - began) / MESSAGES * 1e6)
    gc.unfreeze()
    return {name: {"least_us": min(us), "median_us": median(us)} for name, us in taken.items()}


def _steps(folder: Path) -> dict[str, Callable[[], None]]:
    bundle, rng = bundles.load(folder), np.random.default_rng(1)
    network = Network.of(bundle)
    first = Folded.of(first_adapter(bundle), network)
    values = [world.message(rng, i) for i in range(MESSAGES)]
    records = [Taken("transactions", i % 6, i, 0, b"k%d" % i, value, {}) for i, value in enumerate(values)]
    decoder, parser = Decoder(len(bundle.features)), simdjson.Parser(MAX_RECORD_BYTES)
    batches = [decoder.decode(value) for value in values]
    jobs = [Job(b, {"topic": "transactions", "partition": 0, "offset": i}, first) for i, b in enumerate(batches)]
    x = np.concatenate([b.x for b in batches])
    to, view = Targets({name: name for name in TOPICS}, 6), Catalog(bundle, network).view()

    def parse() -> None:
        for value in values:
            doc = parser.parse(value)
            del doc  # its buffers are the parser's, for the next

    def decode() -> None:
        for value in values:
            decoder.decode(value)

    def in_passes_of(n: int, work: Callable[[int, int], object]) -> None:
        for begin in range(0, MESSAGES, n):
            work(begin, begin + n)

    def answers(begin: int, end: int) -> None:
        answer(records[begin:end], view, decoder, bundle, network, to)

    return {
        "parse": parse,
        "decode (parse too)": decode,
        "pass": lambda: in_passes_of(
            64, lambda a, b: probabilities(x[a * world.ROWS : b * world.ROWS], network, [first])
        ),
        "score (pass too)": lambda: in_passes_of(64, lambda a, b: score(jobs[a:b], bundle, network, None)),
        **{f"all, {n} together": partial(in_passes_of, n, answers) for n in TOGETHER},
    }
