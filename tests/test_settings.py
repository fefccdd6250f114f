"""Settings: every fault at once and by the name the operator gave it, Kafka's passed through but for the fixed ones."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.errors import OperatorError
from shared.settings import (
    RESERVED,
    HealerSettings,
    MonitorSettings,
    ProducerSettings,
    ScorerSettings,
    ServiceSettings,
    kafka_settings,
    load,
)

KINDS: list[type[ServiceSettings]] = [ScorerSettings, HealerSettings, MonitorSettings, ProducerSettings]
WHERE = {"KAFKA_BOOTSTRAP_SERVERS": "k:9092"}


def test_any_librdkafka_setting_passes_through(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    given = {
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_PASSWORD_FILE": str(secret),
        "KAFKA_SSL_CA_LOCATION": "/ca.pem",
        "KAFKA_SECURITY_PROTOCOL": "",  # set to nothing is not set
        "PATH": "/bin",
    }
    assert kafka_settings(WHERE | given) == {
        "bootstrap.servers": "k:9092",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.password": "s3cret",
        "ssl.ca.location": "/ca.pem",
    }


@pytest.mark.parametrize("key", RESERVED)
def test_what_exactly_once_rests_on_is_fixed(key):
    name = f"KAFKA_{key.upper().replace('.', '_')}"
    with pytest.raises(OperatorError, match=f"{name}.*unset"):
        kafka_settings(WHERE | {name: "x"})


def test_no_cluster_says_how_to_get_one():
    with pytest.raises(OperatorError, match=r"KAFKA_BOOTSTRAP_SERVERS is not set.*selfheal broker"):
        kafka_settings({})


def test_a_secret_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(OperatorError, match="KAFKA_SASL_PASSWORD_FILE: cannot read"):
        kafka_settings(WHERE | {"KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "none")})


def test_all_faults_are_told_at_once_by_their_variable(monkeypatch):
    monkeypatch.setenv("SCORER_TURN_MAX", "lots")
    monkeypatch.setenv("SELFHEAL_COMMIT_BUDGET_S", "-1")
    with pytest.raises(OperatorError) as told:
        load(ScorerSettings)
    assert "SCORER_TURN_MAX" in str(told.value)
    assert "'lots'" in str(told.value)
    assert "SELFHEAL_COMMIT_BUDGET_S" in str(told.value)


def test_a_flag_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("SCORER_TURN_MAX", "10")
    monkeypatch.setenv("SELFHEAL_PREFIX", "env")
    assert load(ScorerSettings).turn_max == 10
    settings = load(ScorerSettings, turn_max=20, prefix="flag", slot=None)
    assert (settings.turn_max, settings.prefix, settings.slot) == (20, "flag", "0")


def test_the_environment_alone_counts_no_file_lying_about(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("SCORER_TURN_MAX=10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCORER_TURN_MAX", raising=False)
    assert load(ScorerSettings).turn_max == ScorerSettings.model_fields["turn_max"].default != 10


@pytest.mark.parametrize("kind", KINDS)
def test_settings_cannot_be_changed(kind):
    settings = load(kind)
    with pytest.raises(ValidationError, match="frozen"):
        settings.prefix = "other"


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_turn_is_shorter_than_what_the_group_allows(kind):
    """A turn waits, then commits; after max.poll.interval.ms (300 s) without a poll the group throws a replica out."""
    waits = {"adapter_wait_s", "fetch_budget_s", "poll_s", "commit_budget_s"} & kind.model_fields.keys()
    longest = sum(limit.le for name in waits for limit in kind.model_fields[name].metadata if hasattr(limit, "le"))
    assert 0 < longest <= 300


def test_lockstep_outlasts_a_slow_commit(monkeypatch):
    monkeypatch.setenv("PRODUCER_SETTLE_S", "10")
    with pytest.raises(OperatorError, match="PRODUCER_SETTLE_S must not be shorter than SELFHEAL_COMMIT_BUDGET_S"):
        load(ProducerSettings)
