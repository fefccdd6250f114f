"""`docker compose up` as a newcomer would run it: waits until predictions flow and a repair of its drift serves,
with three scorers sharing the work, then takes it all down. Exit code 0 when that came to pass, 1 when it did not."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from shared.kafka import Follower, closing, group_members
from shared.records import decode_event

UP_S = 600.0  # images are built, and a broker's healthcheck passes
HEAL_S = 120.0
PROJECT = "selfheal-smoke"


def main() -> None:
    """Blocks for a few minutes where the images are to be built."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"SELFHEAL_KAFKA_PORT": str(port)}

    def compose(*arguments: str, timeout_s: float = UP_S) -> None:
        command = ["docker", "compose", "--project-name", PROJECT, *arguments]
        subprocess.run(command, env=environment, check=True, timeout=timeout_s, stdin=subprocess.DEVNULL)

    began = time.monotonic()
    try:
        compose("up", "--detach", "--build", "--quiet-pull", "--scale", "scorer=3")
        say(began, "up")
        look({"bootstrap.servers": f"localhost:{port}"}, began)
        compose("ps", "--all")
    except (subprocess.SubprocessError, TimeoutError) as exc:
        with contextlib.suppress(subprocess.SubprocessError):
            compose("ps", "--all")
            compose("logs", "--tail", "30")
        fail(str(exc))
    finally:
        compose("down", "--volumes", "--timeout", "20", timeout_s=120)
    say(began, "down")


def look(kafka: dict[str, str], began: float) -> None:
    """Raises TimeoutError: what did not happen."""
    predictions = 0

    def healed() -> bool:
        told = [decode_event(record.value) for record in events.take(0.2)]
        return any(e.kind == "adapter-activated" and e.facts.get("verdict") == "units" for e in told)

    def flow() -> bool:
        nonlocal predictions
        predictions += len(scored.take(0.2))
        return predictions >= 50

    def shared() -> bool:
        members = group_members(kafka, "scorer")
        return len(members) == 3 and all(member.partitions for member in members)

    with closing(Follower(kafka, ["events"])) as events, closing(Follower(kafka, ["predictions"])) as scored:
        for what, condition in (
            ("50 predictions", flow),
            ("three scorers share the partitions", shared),
            ("the changed unit is diagnosed, and a repair serves", healed),
        ):
            wait(condition, what)
            say(began, what)


def wait(condition: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + HEAL_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {HEAL_S:g} s: {what}")
        time.sleep(0.2)


def say(began: float, what: str) -> None:
    sys.stdout.write(f"compose smoke: {time.monotonic() - began:6.1f} s  {what}\n")
    sys.stdout.flush()


def fail(why: str) -> NoReturn:
    sys.exit(f"compose smoke failed: {why}")


if __name__ == "__main__":
    main()
