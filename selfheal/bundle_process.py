"""Trains a bundle in a process of its own, beside whatever else has to start: torch never enters this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selfheal.process import SUPERVISED_ENV
from shared.errors import OperatorError

TRAIN_S = 120.0


@contextmanager
def training(folder: Path) -> Iterator[Callable[[], None]]:
    """Start training into the folder; the block gets a function that waits until the bundle is there.

    That function raises OperatorError with what the trainer said. Nothing is left running after the block.
    """
    env = {k: v for k, v in os.environ.items() if k != SUPERVISED_ENV}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "selfheal", "train", "--out", str(folder)], env=env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip

    def finish() -> None:
        try:
            said, _ = process.communicate(timeout=TRAIN_S)
        except subprocess.TimeoutExpired as exc:
            raise OperatorError(f"training a bundle took longer than {TRAIN_S:.0f} s") from exc
        if process.returncode:
            raise OperatorError(f"no bundle could be trained:\n{said.strip()}")

    try:
        yield finish
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
