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

from selfheal.experiment.ceiling import ceiling
from selfheal.experiment.evaluate import drifted_rows, evaluate
from selfheal.experiment.simulate import simulate, stream
from selfheal.experiment.summary import Numbers, Parameters, lift, of_seed
from selfheal.training import train
from shared.bundle import Bundle
from shared.errors import OperatorError
from shared.forward import Folded, Network, probabilities
from shared.scores import scores

_PROGRAM = f"import sys; from {__name__} import main; main(sys.argv[1:])"
FIRST, COUNT = 1_000, 60  # far from seeds that people name


def simulated(first: int, count: int, parameters: Parameters) -> Iterator[Numbers]:
    """Summaries of seeds first, first + 1, ..; besides what runs over Kafka have, the lift of the as-published
    variant measured otherwise: on the table's rows, and against the network of the seed before as the shadow."""
    with tempfile.TemporaryDirectory() as folder:
        other = Network.of(train(Path(folder) / "other", seed=first - 1))
        for seed in range(first, first + count):
            bundle = train(Path(folder) / "own", seed=seed)
            yield _summary(bundle, other, seed, parameters)
            other = Network.of(bundle)


def _summary(bundle: Bundle, other: Network, seed: int, parameters: Parameters) -> Numbers:
    network, table = Network.of(bundle), drifted_rows(seed, parameters.drift_strength)
    clean, clean_adapters = simulate(bundle, stream(seed, "clean", parameters), seed=seed, parameters=parameters)
    batches = stream(seed, "as_published", parameters)
    run, adapters = simulate(bundle, batches, seed=seed, parameters=parameters)
    outcomes = evaluate(bundle, clean_adapters[clean.active], adapters[run.active], seed, parameters.drift_strength)
    fitted = [Folded.of(adapters[e.facts["post_version"]], network) for e in run.of_kind("heal-finished")]
    on_table = [scores(p, table.y).accuracy for p in probabilities(table.x, network, fitted)[1:]]
    own, others = (scores(probabilities(table.x, n, [])[0], table.y).accuracy for n in (network, other))
    after = [row.accuracy_post_heal for row in run.rows]
    best = ceiling(parameters.drift_strength)
    frozen = [scores(probabilities(b.x, other, [])[0], b.y).accuracy for b in batches]
    return {
        **of_seed(seed, parameters, {"clean": clean, "as_published": run}, outcomes, best),
        "lift_on_table": lift([a - own for a in on_table]),
        "lift_on_table_other_shadow": lift([a - others for a in on_table]),
        "lift_other_shadow": lift([None if a is None else a - f for a, f in zip(after, frozen, strict=True)]),
    }  # fmt: skip


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
