"""The front door: exit codes, what an error looks like, what `--help` loads, options that teach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from selfheal import cli
from selfheal.settings_table import markdown
from shared.errors import Fatal, Fenced, OperatorError, Refused, SelfhealError, TimedOut
from shared.settings import MonitorSettings, ScorerSettings

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "numpy", "confluent_kafka", "pydantic", "matplotlib", "structlog", "msgspec")


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Exit code of `selfheal ARGS` in this process, with no cluster named."""
    monkeypatch.setattr(sys, "argv", ["selfheal", *args])
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [(OperatorError("x"), 2), (Fatal("x"), 3), (Fenced("x"), 4), (Refused("x"), 1), (TimedOut("x"), 1)],
)
def test_exit_codes_follow_what_the_caller_must_do(error: SelfhealError, code: int) -> None:
    assert cli.exit_code(error) == code


def test_an_operator_error_is_one_readable_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "status", "--data-dir", str(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no Kafka to talk to: KAFKA_BOOTSTRAP_SERVERS is not set")
    assert "selfheal up" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["score", "produce", "topics"])
def test_commands_that_need_a_broker_say_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """In a process of its own: a service installs signal handlers."""
    monkeypatch.setenv("SELFHEAL_BUNDLE", str(tmp_path))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "selfheal", command, "--data-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: no Kafka to talk to" in done.stderr


def test_faults_in_settings_are_all_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = {**os.environ, "SCORER_TURN_MAX": "7000", "SCORER_POLL_S": "no", "SELFHEAL_BUNDLE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "selfheal", "score"], env=env, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "SCORER_TURN_MAX" in done.stderr
    assert "SCORER_POLL_S" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    """That is what makes it quick, on any machine."""
    script = f"""
import sys
sys.argv = ["selfheal", "--help"]
from selfheal.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def commands() -> list[tuple[str, typer.core.TyperCommand]]:
    group = get_command(cli.app)
    found = []
    for name, command in group.commands.items():
        for sub_name, sub in getattr(command, "commands", {"": command}).items():
            found.append((f"{name} {sub_name}".strip(), sub))
    return found


def test_every_command_and_option_explains_itself() -> None:
    silent = []
    for name, command in commands():
        if not command.help:
            silent.append(name)
        silent += [f"{name} {p.name}" for p in command.params if p.name != "help" and not getattr(p, "help", None)]
    assert not silent


def test_the_commands_of_the_issue_are_there() -> None:
    names = {name for name, _ in commands()}
    assert names >= {
        "broker", "topics", "train", "score", "heal", "monitor", "produce", "replay", "tail", "status", "pin", "unpin",
        "up", "demo", "experiment reference", "experiment gauntlet", "health", "settings",
    }  # fmt: skip


def test_the_readme_ends_with_what_the_command_prints() -> None:
    assert (ROOT / "README.md").read_text("utf-8").endswith(markdown()), "put what `selfheal settings` prints there"


def test_settings_names_every_variable_once() -> None:
    variables = [line.split("`")[1] for line in markdown().splitlines() if line.startswith("| `")]
    assert len(variables) == len(set(variables))
    assert {"SELFHEAL_PREFIX", "SCORER_SLOT", "MONITOR_THRESHOLDS", "HEALER_ROWS_MAX", "PRODUCER_SETTLE_S"} <= set(
        variables
    )


def test_health_follows_the_age_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "alive"
    assert call(monkeypatch, "health", "--file", str(file)) == 1
    file.touch()
    assert call(monkeypatch, "health", "--file", str(file)) == 0
    os.utime(file, (1, 1))
    assert call(monkeypatch, "health", "--file", str(file)) == 1
    assert "never written" in capsys.readouterr().out


def test_list_scenarios_needs_no_broker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "produce", "--list-scenarios") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["reference", *(f"S{i}" for i in range(16))]


def test_defaults_that_help_shows_are_those_of_the_settings() -> None:
    commands = get_command(cli.app).commands
    for command, kind, name in (("score", ScorerSettings, "turn_max"), ("monitor", MonitorSettings, "policy")):
        option = next(p for p in commands[command].params if p.name == name)
        assert option.show_default == str(kind.model_fields[name].default)
