"""TLS with passwords and with certificates, to a broker that insists on them; and where secrets do not show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import read_whole
from secure_kit import USERS, Authority, Secured
from test_acl import feed

from selfheal.local import LocalPipeline
from shared.bundle import Bundle
from shared.errors import OperatorError
from shared.kafka import Follower, Session, Writer, create_topics, list_topics
from shared.topics import topic_name

pytestmark = pytest.mark.broker
BUDGET_S = 4.0
SIGNING_KEY = "a-signing-key-that-nobody-may-see-0123456789"
ROOT = Path(__file__).parents[1]


def mtls(secured: Secured, authority: Authority | None = None) -> dict[str, str]:
    """librdkafka settings of the operator with a certificate."""
    pair = (authority or secured.authority).pair("operator")
    return {
        "bootstrap.servers": secured.mtls, "security.protocol": "SSL", "ssl.ca.location": str(secured.ca),
        "ssl.certificate.pem": pair.certificate, "ssl.key.pem": pair.key,
    }  # fmt: skip


def secrets_of(kafka: dict[str, str]) -> list[str]:
    """What may show nowhere; of a key a line of its body."""
    key = kafka.get("ssl.key.pem", "").splitlines()
    return [SIGNING_KEY, *key[1:2], *([kafka["sasl.password"]] if "sasl.password" in kafka else [])]


@contextmanager
def command_lines() -> Iterator[list[str]]:
    """Filled, when the block is left, with the command line of every process below this one, as `ps` shows it."""
    found: list[str] = []
    yield found
    for child in psutil.Process().children(recursive=True):
        path = Path(f"/proc/{child.pid}/cmdline")
        found.append(path.read_text("utf-8", "replace") if path.exists() else " ".join(child.cmdline()))


@pytest.mark.parametrize("way", ["SASL_SSL", "mTLS"])
def test_services_run_over_tls_and_show_no_secret(
    secured: Secured, bundle: Bundle, bundle_dir: Path, tmp_path: Path, wait_for: Callable[..., None], way: str
) -> None:
    kafka = secured.user("operator") if way == "SASL_SSL" else mtls(secured)
    prefix = f"tls-{way.lower().replace('_', '-')}"
    env = {"SELFHEAL_SIGNING_KEY": SIGNING_KEY, "SELFHEAL_LOG_LEVEL": "DEBUG"}
    with (
        LocalPipeline(
            kafka, prefix, bundle_dir, without=["producer", "healer"], env=env, run_dir=tmp_path, partitions=1
        ) as pipeline,
        command_lines() as lines,
    ):
        pipeline.wait_ready(60)
        feed(secured, prefix, bundle)
        wait_for(lambda: b"batch_idx" in _values(secured, prefix, "metrics"), "a row of the monitor's", 30)
    written = "".join(path.read_text("utf-8") for path in tmp_path.rglob("*.log"))
    on_topics = _values(secured, prefix, "events") + _values(secured, prefix, "control")
    shown = subprocess.run(
        [sys.executable, "-m", "selfheal", "settings"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=_environment(kafka, **env), check=True,
    )  # fmt: skip
    assert sum("selfheal" in line for line in lines) >= 2
    assert "started" in written
    for secret in secrets_of(kafka):
        assert not [line for line in lines if secret in line]
        assert secret not in written
        assert secret.encode() not in on_topics
        assert secret not in shown.stdout + shown.stderr


def _values(secured: Secured, prefix: str, name: Any) -> bytes:
    return b"".join(m.value() or b"" for m in read_whole(secured.plain, topic_name(name, prefix)))


def _environment(kafka: dict[str, str], **more: str) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("KAFKA_")}
    return ours | {f"KAFKA_{k.upper().replace('.', '_')}": v for k, v in kafka.items()} | more


def test_who_is_not_let_in_is_told_why_within_the_budget(secured: Secured, tmp_path: Path) -> None:
    stranger = Authority("somebody else's CA")
    other_ca = tmp_path / "other.pem"
    other_ca.write_text(stranger.pem)
    wrong = secured.user("operator", "not-the-password-0815")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: list_topics(wrong, BUDGET_S), "invalid credentials"),
        (lambda: Follower(wrong, ["t"], budget_s=BUDGET_S), "invalid credentials"),
        (lambda: Writer(wrong, "w", transactional_id="w", budget_s=BUDGET_S), "invalid credentials"),
        (lambda: Session(wrong, name="s", group="g", topics=["t"], budget_s=BUDGET_S), "invalid credentials"),
        (lambda: list_topics(mtls(secured, stranger), BUDGET_S), "certificate required"),
        (lambda: list_topics({**secured.user("operator"), "ssl.ca.location": str(other_ca)}, BUDGET_S),
         "certificate (could not be verified|verify failed)"),
        (lambda: list_topics({"bootstrap.servers": secured.sasl_ssl}, BUDGET_S), "KAFKA_SECURITY_PROTOCOL"),
        (lambda: list_topics({**secured.user("operator"), "ssl.ca.location": "/no/such/file"}, BUDGET_S),
         "KAFKA_SSL_CA_LOCATION"),
        (lambda: list_topics({**mtls(secured), "ssl.key.pem": "not-a-key-0815"}, BUDGET_S), "KAFKA_SSL_KEY_PEM"),
    ]  # fmt: skip
    with ThreadPoolExecutor(len(cases)) as pool:
        futures = [pool.submit(call) for call, _ in cases]
        for future, (_, why) in zip(futures, cases, strict=True):
            with pytest.raises(OperatorError, match=why) as told:
                future.result(BUDGET_S + 30)
            assert "0815" not in str(told.value)


def test_a_service_with_a_wrong_password_ends_with_exit_code_2(
    secured: Secured, bundle_dir: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("not-the-password-0815\n")
    kafka = {k: v for k, v in secured.user("operator").items() if k != "sasl.password"}
    env = _environment(kafka, KAFKA_SASL_PASSWORD_FILE=str(secret), SELFHEAL_BUNDLE=str(bundle_dir))
    done = subprocess.run(
        [sys.executable, "-m", "selfheal", "score"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "invalid credentials" in done.stderr
    assert "0815" not in done.stdout + done.stderr
    assert not [name for name, password in USERS.items() if password in done.stdout + done.stderr]


def test_everything_that_the_embedded_broker_opens_is_on_loopback(secured: Secured) -> None:
    create_topics(secured.plain, "loopback", names=["events"])
    listening = {
        connection.laddr.ip
        for child in psutil.Process().children(recursive=True) if "java" in child.name()
        for connection in child.net_connections("inet") if connection.status == psutil.CONN_LISTEN
    }  # fmt: skip
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
