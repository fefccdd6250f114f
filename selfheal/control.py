"""A person's orders to the scorers: serve this version whatever the monitor says, and no longer."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from typing import Any

from shared.errors import OperatorError
from shared.kafka import Follower, Out, Writer
from shared.records import FIRST_VERSION, Control, encode
from shared.settings import ServiceSettings, load
from shared.signing import Seal
from shared.telemetry import wall_clock
from shared.topics import topic_name

READ_S = 60.0
SHOWN = 5


def versions(kafka: Mapping[str, Any], prefix: str) -> list[str]:
    """Every version that can be served: the bundle's own, then what was published, oldest first."""
    follower = Follower(kafka, [topic_name("adapters", prefix)], name="versions")
    try:  # keys alone are kept: a long-lived pipeline has gigabytes of adapters
        found = {(r.key or b"").decode("utf-8", "replace"): r.value is not None for r in follower.until_end(READ_S)}
    finally:
        follower.close()
    return [FIRST_VERSION, *(version for version, there in found.items() if there)]


def pin(kafka: Mapping[str, Any], prefix: str, version: str | None, reason: str) -> str:
    """Publish the order (version None: unpin); returns who is named as its author. Raises OperatorError when
    nobody has published such a version."""
    if version is not None and version not in (known := versions(kafka, prefix)):
        newest = ", ".join(known[-SHOWN:])
        raise OperatorError(f"there is no adapter {version}: the newest are {newest} (`selfheal tail adapters`)")
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    order = Control(setting="pin", at=wall_clock(), by=by, reason=reason, version=version)
    seal = Seal.of(load(ServiceSettings, prefix=prefix))
    Writer(kafka, "pin").publish([seal.sign(Out(topic_name("control", prefix), "pin", encode(order)))])
    return by
