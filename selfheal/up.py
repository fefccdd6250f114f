"""`selfheal up`: everything in the foreground, until it is told to stop."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from selfheal.bundle_process import training
from selfheal.cli_options import DATA_DIR
from selfheal.local import LocalPipeline
from selfheal.where import Cluster, kafka_or_embedded
from shared.errors import OperatorError
from shared.settings import BOOTSTRAP_ENV

LOOK_EVERY_S = 0.5
READY_S = 90.0
# What streams when nobody says otherwise: 30 clean batches, then a feed that sends V14 in another unit for 60 batches,
# and again after 60 more.
STREAM = ("--drift", "unit:V14:10:from=31,every=60")
Say = Callable[[str, str], None]


def up(
    console: Console, *, data_dir: Path, prefix: str, scorers: int, without: Collection[str], bundle: Path | None,
    thresholds: Path | None, policy: str, producer: Sequence[str], partitions: int,
) -> None:  # fmt: skip
    """Broker unless one is given, topics, bundle (None: trained once into data_dir), services; blocks until a
    signal unwinds it. Raises OperatorError: something cannot start, or the embedded broker ended."""

    def say(what: str, rest: str) -> None:
        console.print(Text.assemble((f"{what:<12} ", "bold"), rest), soft_wrap=True)

    with _bundle(bundle, data_dir, say) as trained, kafka_or_embedded(data_dir) as cluster:
        say("kafka", cluster.kafka["bootstrap.servers"] + (" (embedded)" if cluster.embedded else ""))
        pipeline = LocalPipeline(
            cluster.kafka, prefix, trained(), scorers=scorers, without=without, thresholds=thresholds, policy=policy,
            producer=producer, run_dir=data_dir, partitions=partitions, notice=lambda text: say("notice", text),
        )  # fmt: skip
        try:
            with pipeline:
                pipeline.wait_ready(READY_S)
                for child in pipeline.children:
                    say(child.name, f"process {child.pid}, log {child.log}")
                _what_next(say, cluster, data_dir, prefix, without)
                while cluster.alive():
                    time.sleep(LOOK_EVERY_S)
                raise OperatorError("the embedded broker ended by itself; `selfheal up` starts it again")
        finally:
            say("stopped", f"all services; topics and bundle stay for the next time ({data_dir})")


@contextmanager
def _bundle(given: Path | None, data_dir: Path, say: Say) -> Iterator[Callable[[], Path]]:
    """The bundle's folder, once it is there: training goes on while the broker starts."""
    folder = given or data_dir / "bundle"
    if given is not None or (folder / "bundle.json").exists():
        yield lambda: folder
        return
    say("bundle", f"training one into {folder}")
    with training(folder) as finish:

        def trained() -> Path:
            finish()
            return folder

        yield trained


def _what_next(say: Say, cluster: Cluster, data_dir: Path, prefix: str, without: Collection[str]) -> None:
    more = ["--prefix", prefix] if prefix else []
    if cluster.embedded and data_dir != DATA_DIR:
        more += ["--data-dir", str(data_dir)]
    options = " " + shlex.join(more) if more else ""
    say("ready", "Ctrl-C stops everything. In another terminal:")
    say("", f"selfheal status{options}")
    say("", f"selfheal tail events{options} --since beginning")
    say("", f"selfheal tail metrics{options}")
    if "producer" in without:
        say("", f"selfheal produce{options} --scenario S12 --batches 60")
    say("", f"or your own client: export {BOOTSTRAP_ENV}={cluster.kafka['bootstrap.servers']}")
