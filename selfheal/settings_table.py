"""The table of every setting, from the classes that read them: docs/settings.md is its output."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from shared.settings import (
    RESERVED,
    HealerSettings,
    MonitorSettings,
    ProducerSettings,
    ScorerSettings,
    ServiceSettings,
)

GENERATED = "<!-- Generated: .venv/bin/selfheal settings > docs/settings.md -->"
CLASSES: tuple[tuple[str, type[ServiceSettings]], ...] = (
    ("Every service", ServiceSettings),
    ("Scorer", ScorerSettings),
    ("Healer", HealerSettings),
    ("Monitor", MonitorSettings),
    ("Producer", ProducerSettings),
)
_SYMBOLS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}


class Row(NamedTuple):
    """variable: its name in the environment. default: as one would write it there."""

    variable: str
    default: str
    allowed: str
    meaning: str


MACHINE = (
    Row("KAFKA_BOOTSTRAP_SERVERS", "", "host:port,..", "the cluster; unset: the embedded broker in SELFHEAL_DATA_DIR"),
    Row("KAFKA_<NAME>", "", "", "any setting of librdkafka: KAFKA_SASL_USERNAME is its sasl.username, and so on"),
    Row("KAFKA_<NAME>_FILE", "", "a path", "the same, read from a file (for secrets)"),
    Row("SELFHEAL_DATA_DIR", ".selfheal", "a path", "what is kept here: the embedded broker's data, a bundle, logs"),
    Row("SELFHEAL_HEALTH_FILE", "", "a path", "touched once a second by a living service, for `selfheal health`"),
    Row("SELFHEAL_HEALTH_MAX_AGE_S", "30.0", "", "for `selfheal health`: an older file means not healthy"),
    Row("NO_COLOR", "", "anything", "no colours in the terminal"),
)  # fmt: skip


def rows(kind: type[ServiceSettings], *, beyond: type[ServiceSettings] | None = None) -> list[Row]:
    """The settings of a class, in its order; beyond: leave out what that class has."""
    prefix = str(kind.model_config.get("env_prefix") or "")
    skip = beyond.model_fields if beyond is not None else {}
    return [_row(prefix, name, field) for name, field in kind.model_fields.items() if name not in skip]


def markdown() -> str:
    """All of them, as docs/settings.md holds them."""
    parts = [
        "# Every setting",
        "",
        GENERATED,
        "",
        "Read once, at start, from the environment; a flag on the command line wins. All faults are reported together.",
        "These settings of librdkafka are fixed, because exactly-once rests on them: "
        + ", ".join(f"`{name}`" for name in RESERVED) + ".",
        "",
        *_table("Kafka and this machine", list(MACHINE)),
    ]  # fmt: skip
    for title, kind in CLASSES:
        own = rows(kind, beyond=None if kind is ServiceSettings else ServiceSettings)
        parts += _table(title, own)
    return "\n".join(parts).rstrip() + "\n"


def _table(title: str, content: list[Row]) -> list[str]:
    head = [f"## {title}", "| variable | default | allowed | meaning |", "|---|---|---|---|"]
    body = [f"| `{r.variable}` | {_code(r.default)} | {_code(r.allowed)} | {r.meaning} |" for r in content]
    return [*head, *body, ""]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _row(prefix: str, name: str, field: FieldInfo) -> Row:
    variable = str(field.validation_alias) if field.validation_alias else f"{prefix}{name}".upper()
    default = "" if field.default in (None, "") else str(field.default)
    return Row(variable, default, _allowed(field), str(field.description))


def _allowed(field: FieldInfo) -> str:
    options = getattr(field.annotation, "__args__", ())
    if options and all(isinstance(o, str) for o in options):
        return ", ".join(options)
    bounds: list[Any] = []
    for rule in field.metadata:
        found = {sign: getattr(rule, word, None) for word, sign in _SYMBOLS.items()}
        bounds += [f"{sign} {value}" for sign, value in found.items() if value is not None]
    return ", ".join(bounds)
