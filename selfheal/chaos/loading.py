"""The load's process, and what it was told was kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from selfheal.chaos.load import PATIENCE_S, Spec
from selfheal.child import Child
from selfheal.local import environment
from shared.errors import Fatal
from shared.kafka import read_all
from shared.records import Policy
from shared.topics import topic_name


class _Process(Child):
    def _command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "selfheal.chaos.load", *self.args]


class Load:
    """Runs while the block does. rate: messages/s."""

    def __init__(
        self, kafka: Mapping[str, Any], prefix: str, policy: Policy, seed: int, rate: float, folder: Path
    ) -> None:
        self._kafka, self._prefix = dict(kafka), prefix
        self._journal = folder / "acknowledged.txt"
        spec = msgspec.json.encode(Spec(prefix, policy, seed, rate, str(self._journal))).decode()
        self._process = _Process("load", "0", [spec], folder / "logs" / "load.log", environment(kafka))

    def __enter__(self) -> Load:
        self._process.launch()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.join(0.0)

    def check(self) -> None:
        """Raises Fatal when it has ended."""
        if self._process.poll() is not None:
            raise Fatal(f"the load ended by itself:\n{self._process.log_tail()}")

    def end(self) -> None:
        """Have it send the labels that are left, and wait until all is acknowledged. Raises Fatal where it is not."""
        self._process.terminate()
        if not self._process.join(time.monotonic() + PATIENCE_S) or self._process.exit_code:
            raise Fatal(f"the load did not end in order:\n{self._process.log_tail()}")

    def acknowledged(self) -> list[str]:
        """Keys of the messages of which the broker said that it has them."""
        return self._journal.read_text("utf-8").split()

    def lost(self) -> list[str]:
        """Of these, the ones that are not on the topic. Whether what is there was answered the auditor says."""
        there = {(r.key or b"").decode("utf-8", "replace") for r in read_all(self._kafka, self._topic(), PATIENCE_S)}
        return [key for key in self.acknowledged() if key not in there]

    def _topic(self) -> str:
        return topic_name("transactions", self._prefix)
