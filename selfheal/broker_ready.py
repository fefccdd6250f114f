"""When a broker can be used: not when its port opens, but when a transactional producer gets through."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

# The one exception to the rule that shared/kafka alone imports it: this asks while a broker is still coming up, when
# every error is expected and none of shared/kafka's verdicts on errors applies.
from confluent_kafka import KafkaException, Producer  # noqa: TID251 - the exception above

from shared.errors import TimedOut

PROBE_ID = "selfheal-ready"  # one fixed name: probing leaves one entry behind, not one per start
TRY_S = 2.0
_silent = logging.getLogger("selfheal.broker.probe")
_silent.disabled = True  # refused connections are expected here


def addresses(bootstrap: str) -> list[tuple[str, int]]:
    """``host:port,host:port`` taken apart."""
    pairs = (server.rpartition(":") for server in bootstrap.split(","))
    return [(host, int(port)) for host, _, port in pairs]


def wait_ready(
    bootstrap: str,
    deadline_s: float,
    *,
    nodes: int = 1,
    cluster_id: str | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Block until all ports are open, ``nodes`` brokers are known, and a transactional producer could start.

    Raises TimedOut, with what was still missing, after deadline_s or as soon as alive() is false. cluster_id:
    another cluster that answers on these ports is not the one waited for.
    """
    deadline = time.monotonic() + deadline_s
    missing = "no connection"

    def check() -> None:
        if not alive():
            raise TimedOut(f"the process ended ({missing} so far)")
        if time.monotonic() > deadline:
            raise TimedOut(f"not ready after {deadline_s:.0f} s: {missing}")

    for address in addresses(bootstrap):
        while not _is_open(address):
            check()
            time.sleep(0.03)
    settings = {"bootstrap.servers": bootstrap, "transactional.id": PROBE_ID, "retry.backoff.ms": 20}
    producer = Producer({**settings, "reconnect.backoff.max.ms": 200, "logger": _silent})
    while True:
        check()
        try:
            cluster = producer.list_topics(timeout=TRY_S)
            if cluster_id not in (None, cluster.cluster_id):
                missing = f"the cluster on {bootstrap} is {cluster.cluster_id}, not {cluster_id}"
            elif len(cluster.brokers) < nodes:
                missing = f"{len(cluster.brokers)} of {nodes} brokers"
            else:
                producer.init_transactions(TRY_S)
                return
        except KafkaException as exc:  # whatever it is, it may pass: the deadline decides
            missing = str(exc.args[0].str())
        time.sleep(0.05)


def _is_open(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, 1.0):
            return True
    except OSError:
        return False
