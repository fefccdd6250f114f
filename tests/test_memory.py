"""Memory that was freed in the middle of a heap goes back to the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# As Kafka's client does it: threads with heaps of their own, and something at the end of each that stays.
FRAGMENTED = """
import threading, time
import psutil
from selfheal.memory import give_back, give_back_now_and_then

kept = []

def fill():
    blocks = [bytearray(8_000) for _ in range(8_000)]
    kept.append(blocks[-1])

threads = [threading.Thread(target=fill) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
rss = lambda: psutil.Process().memory_info().rss // 2**20
before = rss()
{how}
print(before, rss())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc: elsewhere the C library is asked for nothing")
@pytest.mark.parametrize("how", ["assert give_back()", "give_back_now_and_then(0.1); time.sleep(2)"])
def test_what_was_freed_is_given_back(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTED.replace("{how}", how)], cwd=ROOT, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    assert before > 120
    assert after < before - 100
