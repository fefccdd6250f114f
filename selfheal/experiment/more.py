"""Further seeds, simulated in processes of their own: how often does our process give what was published?

Each process prints one summary a line, and ends by itself when nobody reads them any more.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from selfheal.experiment.as_script import as_script, trained_together
from selfheal.experiment.ceiling import ceiling
from selfheal.experiment.evaluate import evaluate
from selfheal.experiment.simulate import simulate, stream
from selfheal.experiment.summary import Numbers, Parameters, of_seed
from selfheal.training import train
from shared.bundle import Bundle
from shared.errors import OperatorError

_PROGRAM = f"import sys; from {__name__} import main; main(sys.argv[1:])"
FIRST, COUNT = 1_000, 60  # far from seeds that people name


def simulated(first: int, count: int, parameters: Parameters) -> Iterator[Numbers]:
    """Summaries of seeds first, first + 1, ..; besides what runs over Kafka have, `script`: the published figures of
    a network trained as the published script does, the one of the seed before as its shadow."""
    with tempfile.TemporaryDirectory() as folder:
        shadow: Bundle | None = None
        for seed in range(first, first + count):
            bundle = train(Path(folder) / "own", seed=seed)
            shadow = shadow or trained_together(Path(folder) / "shadow", seed - 1, bundle)
            together = trained_together(Path(folder) / "together", seed, bundle)
            script = as_script(together, shadow, seed, parameters)
            yield {**_summary(bundle, seed, parameters), "script": script}
            shadow = together


def _summary(bundle: Bundle, seed: int, parameters: Parameters) -> Numbers:
    clean, clean_adapters = simulate(bundle, stream(seed, "clean", parameters), seed=seed, parameters=parameters)
    batches = stream(seed, "as_published", parameters)
    run, adapters = simulate(bundle, batches, seed=seed, parameters=parameters)
    outcomes = evaluate(bundle, clean_adapters[clean.active], adapters[run.active], seed, parameters.drift_strength)
    best = ceiling(parameters.drift_strength)
    return of_seed(seed, parameters, {"clean": clean, "as_published": run}, outcomes, best)


def in_processes(
    parameters: Parameters, *, first: int = FIRST, count: int = COUNT, processes: int = 2,
    on_seed: Callable[[], None] = lambda: None,
) -> list[Numbers]:  # fmt: skip
    """The same from several processes, by seed. on_seed is called from other threads. Raises OperatorError when one
    of them fails."""
    shares = [chunk.tolist() for chunk in np.array_split(np.arange(first, first + count), processes) if len(chunk)]
    text = msgspec.json.encode(parameters).decode()
    with ExitStack() as stack:
        # Leaving in reverse: what still runs is ended first, so that the readers come to an end, then they are joined.
        readers = stack.enter_context(ThreadPoolExecutor(len(shares)))
        children = []
        for share in shares:
            command = [sys.executable, "-P", "-c", _PROGRAM, str(share[0]), str(len(share)), text]
            children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
            stack.callback(_end, children[-1])
        found = [readers.submit(_read, child, on_seed) for child in children]
        return [summary for each in found for summary in each.result()]


def _read(child: subprocess.Popen[bytes], on_seed: Callable[[], None]) -> list[Numbers]:
    summaries = []
    for line in child.stdout or ():
        summaries.append(msgspec.json.decode(line))
        on_seed()
    if code := child.wait():
        raise OperatorError(f"the simulation of further seeds ended with exit code {code}; what it said is above")
    return summaries


def _end(child: subprocess.Popen[bytes]) -> None:
    with child:  # waits for it and closes its pipe
        child.kill()


def main(arguments: list[str]) -> None:
    """FIRST COUNT PARAMETERS, as in_processes gives them."""
    first, count, text = arguments
    for each in simulated(int(first), int(count), msgspec.json.decode(text, type=Parameters)):
        sys.stdout.buffer.write(msgspec.json.encode(each) + b"\n")
        sys.stdout.buffer.flush()
