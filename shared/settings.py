"""Settings of all services: read once at start from the environment, every fault reported together.

A flag on the command line wins over the environment. The table at the end of README.md is generated from these classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from shared.errors import OperatorError

BOOTSTRAP_ENV = "KAFKA_BOOTSTRAP_SERVERS"
SECRET = ("SELFHEAL_SIGNING_KEY",)  # never shown
# What our guarantees rest on: no environment variable may change these.
RESERVED = (
    "isolation.level",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "transactional.id",
    "group.id",
    "group.instance.id",
    "enable.partition.eof",
)


def kafka_settings(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The librdkafka settings that the environment gives: KAFKA_SASL_USERNAME is sasl.username, and so on.

    KAFKA_<NAME>_FILE reads the value from a file (for secrets). Raises OperatorError: no bootstrap
    servers, a file that cannot be read, or a setting that our guarantees rest on.
    """
    env = os.environ if environ is None else environ
    settings: dict[str, str] = {}
    for name, value in env.items():
        if not name.startswith("KAFKA_") or not value:
            continue
        if name.endswith("_FILE"):
            try:
                value = Path(value).read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as exc:  # no text; a path with a zero in it
                why = exc.strerror if isinstance(exc, OSError) else "it is not text"
                raise OperatorError(f"{name}: cannot read the file it names ({why})") from exc
            name = name.removesuffix("_FILE")
        key = name.removeprefix("KAFKA_").lower().replace("_", ".")
        if key in RESERVED:
            raise OperatorError(f"{name}: {key} is fixed, exactly-once rests on it; unset {name}")
        settings[key] = value
    if "bootstrap.servers" not in settings:
        raise OperatorError(
            f"{BOOTSTRAP_ENV} is not set. Name your cluster in it (host:port), "
            "or run `selfheal broker` for an embedded one"
        )
    return settings


class ServiceSettings(BaseSettings):
    """What every service has. prefix: before every topic's name. slot: this replica's name within its
    service, stable over restarts and unique among the living: the transactional.id rests on it."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    prefix: str = Field("", validation_alias="SELFHEAL_PREFIX", description="every topic is PREFIX.name")
    bundle: Path = Field(
        Path("bundle"), validation_alias="SELFHEAL_BUNDLE", description="folder of the model (selfheal train)"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="SELFHEAL_LOG_LEVEL", description="least severe line that is logged"
    )
    commit_budget_s: float = Field(
        30.0, gt=0, le=120, validation_alias="SELFHEAL_COMMIT_BUDGET_S",
        description="longest a transaction may take to commit before the process gives up and restarts",
    )  # fmt: skip
    session_timeout_ms: int = Field(
        10_000, ge=6_000, le=300_000, validation_alias="SELFHEAL_SESSION_TIMEOUT_MS",
        description="a replica silent for this long loses its partitions to the others",
    )  # fmt: skip
    transaction_timeout_ms: int = Field(
        10_000, ge=2_000, le=900_000, validation_alias="SELFHEAL_TRANSACTION_TIMEOUT_MS",
        description="the broker aborts a transaction left open for this long; readers wait for it until then",
    )  # fmt: skip
    signing_key: SecretStr | None = Field(
        None, validation_alias="SELFHEAL_SIGNING_KEY",
        description="with it adapters and control records are signed, and refused where they are not; several keys,"
        " with spaces between them: the first signs, all are accepted",
    )  # fmt: skip
    signing_key_file: Path | None = Field(
        None, validation_alias="SELFHEAL_SIGNING_KEY_FILE", description="the same, read from a file"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Source, env_settings: Source,
        dotenv_settings: Source, file_secret_settings: Source,
    ) -> tuple[Source, ...]:  # fmt: skip
        """Flags, then the environment; no .env file that somebody forgot."""
        return init_settings, env_settings


class ScorerSettings(ServiceSettings):
    """SCORER_*: the hot path."""

    model_config = SettingsConfigDict(env_prefix="SCORER_", frozen=True, extra="ignore", populate_by_name=True)

    slot: str = Field("0", min_length=1, max_length=100, description="this replica's stable name")
    # A commit takes 5-20 ms however much it holds: at 64 a turn half the time went into waiting for it.
    turn_max: int = Field(2_000, ge=1, le=5_000, description="most messages scored and committed in one turn")
    poll_s: float = Field(0.5, gt=0, le=60, description="longest wait for a first message before looking around")
    adapter_wait_s: float = Field(
        30.0, gt=0, le=120,  # well below max.poll.interval.ms
        description="longest a batch that names its adapter waits for that adapter, then becomes a dead letter",
    )  # fmt: skip


class HealerSettings(ServiceSettings):
    """HEALER_*: fits adapters."""

    model_config = SettingsConfigDict(env_prefix="HEALER_", frozen=True, extra="ignore", populate_by_name=True)

    slot: str = Field("0", min_length=1, max_length=100, description="this replica's stable name")
    fetch_budget_s: float = Field(20.0, gt=0, le=120, description="longest it reads the rows of one request")
    rows_max: int = Field(20_000, ge=100, le=1_000_000, description="most rows one heal reads; more is refused")
    stale_s: float = Field(
        60.0, gt=0, le=86_400,
        description="a request that waited for longer is answered heal-failed (superseded) where a newer one for the"
        " same base, policy and purpose waits behind it",
    )  # fmt: skip


class MonitorSettings(ServiceSettings):
    """MONITOR_*: judges and decides."""

    model_config = SettingsConfigDict(env_prefix="MONITOR_", frozen=True, extra="ignore", populate_by_name=True)

    thresholds: Path | None = Field(None, description="threshold_config.json: what counts as drift and decay")
    policy: Literal["guarded", "reference", "observe"] = Field(
        "guarded",
        description="guarded diagnoses, refuses what it cannot heal, promotes and takes back on evidence; reference"
        " heals as published; observe only measures",
    )
    quiet_batches: int = Field(
        10_000, ge=100, le=10_000_000,
        description="guarded: batches without drift between two false alarms, on average",
    )  # fmt: skip
    evidence: float = Field(
        20.0, ge=2, le=1e9,
        description="guarded: E at which labels promote a candidate or take an adapter back; each trial errs at most"
        " once in so many",
    )  # fmt: skip
    flag_factor: float = Field(
        4.0, ge=1, le=1_000,
        description="guarded: an adapter that moves the share of flagged transactions further than this factor away"
        " from the share on clean rows is not activated",
    )  # fmt: skip
    cooldown: int = Field(
        20, ge=0, le=100_000,
        description="guarded: batches after labels took a repair back before the same kind is tried again",
    )  # fmt: skip
    turn_max: int = Field(500, ge=1, le=10_000, description="most records folded and committed in one turn")
    poll_s: float = Field(0.5, gt=0, le=60, description="longest wait for a first record")
    label_patience: int = Field(
        0, ge=0, le=100_000,
        description="a batch whose labels have not come after this many newer batches is judged without them"
        " (0: it waits for its labels for as long as pending_max allows)",
    )  # fmt: skip
    pending_max: int = Field(
        5_000,
        ge=10,
        le=100_000,
        description="most batches kept waiting for labels; the oldest then goes unjudged",
    )
    thin_lag: int = Field(
        20_000,
        ge=100,
        description="predictions behind, above which it reads a seeded half, quarter, .. of them",
    )
    thin_seed: int = Field(0, ge=0, description="seed of the rule that picks which batches a thinned monitor reads")
    heal_timeout_s: float = Field(60.0, gt=0, le=3_600, description="a heal without an outcome by then is given up")


class ProducerSettings(ServiceSettings):
    """PRODUCER_*: feeds the transactions topic."""

    model_config = SettingsConfigDict(env_prefix="PRODUCER_", frozen=True, extra="ignore", populate_by_name=True)

    slot: str = Field("0", min_length=1, max_length=100, description="this producer's stable name")
    settle_s: float = Field(60.0, gt=0, le=3_600, description="lockstep: longest wait for a batch to be settled")

    @model_validator(mode="after")
    def _settle_outlasts_commit(self) -> ProducerSettings:
        if self.settle_s < self.commit_budget_s:
            raise ValueError("PRODUCER_SETTLE_S must not be shorter than SELFHEAL_COMMIT_BUDGET_S")
        return self


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S], **flags: Any) -> S:
    """Settings from flags (None: not given) over the environment. Raises OperatorError, all faults at once."""
    given = {k: v for k, v in flags.items() if v is not None}
    fields = kind.model_fields
    given = {str(fields[k].validation_alias or k): v for k, v in given.items()}
    try:
        return kind(**given)
    except ValidationError as exc:
        prefix = str(kind.model_config.get("env_prefix", ""))
        lines = []
        for fault in exc.errors():
            name = str(fault["loc"][0]) if fault["loc"] else ""
            shown = name if name.startswith("SELFHEAL_") else f"{prefix}{name}".upper()
            # Without a name the input is all settings together, a secret among them.
            given_s = f" (got {fault.get('input')!r})" if name and name not in SECRET else ""
            lines.append(f"  {shown if name else 'settings'}: {fault['msg']}{given_s}")
        raise OperatorError("settings cannot be used:\n" + "\n".join(lines)) from exc
