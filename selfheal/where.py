"""Which Kafka and which bundle a command means, and where this machine keeps its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from selfheal import broker
from shared.errors import OperatorError
from shared.settings import BOOTSTRAP_ENV, kafka_settings

BUNDLE_ENV = "SELFHEAL_BUNDLE"


def given_kafka() -> dict[str, str] | None:
    """The cluster that the environment names, None where it names none."""
    if os.environ.get(BOOTSTRAP_ENV) or os.environ.get(f"{BOOTSTRAP_ENV}_FILE"):
        return kafka_settings()
    return None


def kafka_folder(data_dir: Path) -> Path:
    """Where the embedded broker keeps its data."""
    return data_dir / "kafka"


def find_kafka(data_dir: Path) -> dict[str, str]:
    """The given cluster, else the embedded broker that runs on the folder. Raises OperatorError: neither."""
    if (given := given_kafka()) is not None:
        return given
    if (bootstrap := broker.running(kafka_folder(data_dir))) is not None:
        return {"bootstrap.servers": bootstrap}
    raise OperatorError(
        f"no Kafka to talk to: {BOOTSTRAP_ENV} is not set and no embedded broker runs on {kafka_folder(data_dir)}. "
        f"Start one (`selfheal up` or `selfheal broker`), or name a cluster in {BOOTSTRAP_ENV} (host:port)"
    )


class Cluster(NamedTuple):
    """kafka: librdkafka settings. alive: whether an embedded broker still runs; somebody else's is his own to watch."""

    kafka: dict[str, str]
    embedded: bool
    alive: Callable[[], bool]


@contextmanager
def kafka_or_embedded(data_dir: Path) -> Iterator[Cluster]:
    """The given cluster, else an embedded broker: the one that runs already, or one for as long as the block lasts."""
    if (given := given_kafka()) is not None:
        yield Cluster(given, False, lambda: True)
        return
    with broker.EmbeddedBroker(kafka_folder(data_dir)) as embedded:
        yield Cluster({"bootstrap.servers": embedded.bootstrap}, True, embedded.alive)


def find_bundle(flag: Path | None, data_dir: Path, environ: Mapping[str, str] | None = None) -> Path:
    """The folder a service loads: as told (flag, then environment), else ./bundle, else what `up` trained.

    Raises OperatorError when nobody said and neither is there.
    """
    env = os.environ if environ is None else environ
    if flag is not None:
        return flag
    if told := env.get(BUNDLE_ENV):
        return Path(told)
    for folder in (Path("bundle"), data_dir / "bundle"):
        if (folder / "bundle.json").exists():
            return folder
    raise OperatorError(
        f"no bundle: neither ./bundle nor {data_dir / 'bundle'} holds one. Make one with `selfheal train`, "
        f"or name one with --bundle or {BUNDLE_ENV}"
    )
