"""What a valid record is, read out of docs/asyncapi.json and docs/protocol.md without the code that services use."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

MAX_ROWS = 1_000
MAX_ID = 200
MAX_VALUE_BYTES = 4 * 1024 * 1024
MAX_JUDGED_BYTES = 2 * 1024 * 1024  # the monitor reads no larger record
ANSWER_ROOM = 4_096  # of MAX_VALUE_BYTES, left for what surrounds an answer


class Invalid(Exception):
    """The record breaks the contract. field: the path to blame, empty where there is none."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field


class Input(NamedTuple):
    """A valid batch. x: (n, d) float32."""

    batch_id: str
    ids: list[str]
    x: npt.NDArray[np.float32]
    created_at: str


def batch(value: bytes | None, d: int) -> Input:
    """A transactions record for a bundle of d features. Raises Invalid."""
    body = _object(value)
    batch_id = _text(body, "batch_id")
    if not 1 <= len(batch_id) <= MAX_ID:
        raise Invalid("batch_id", f"1 to {MAX_ID} characters")
    ids = _strings(body, "transaction_ids")
    rows = _list(body, "features")
    created_at = _text(body, "created_at")
    if len(rows) != len(ids) or len(set(ids)) != len(ids):
        raise Invalid("transaction_ids", "one row each, and no id twice")
    for i, row in enumerate(rows):
        _numbers(row, f"features[{i}]")
        if len(row) != d:
            raise Invalid(f"features[{i}]", f"{len(row)} features, not {d}")
    amounts = body.get("amounts")
    if amounts is not None:
        _numbers(amounts, "amounts")
        if len(amounts) != len(ids):
            raise Invalid("amounts", "one for each transaction")
    with np.errstate(over="ignore"):
        x = np.array(rows, np.float64).astype(np.float32)
    if not np.isfinite(x).all():
        raise Invalid("features", "a number that float32 does not hold")
    return Input(batch_id, ids, x, created_at)


def labels(value: bytes | None) -> tuple[str, list[str], list[int]]:
    """A labels record: batch id, transaction ids, 0 or 1 for each. Raises Invalid."""
    if value is not None and len(value) > MAX_JUDGED_BYTES:
        raise Invalid("", f"more than {MAX_JUDGED_BYTES} bytes")
    body = _object(value)
    batch_id = _text(body, "batch_id")
    if not 1 <= len(batch_id) <= MAX_ID:
        raise Invalid("batch_id", f"1 to {MAX_ID} characters")
    ids, given = _strings(body, "transaction_ids"), _list(body, "labels")
    if not all(type(v) is int and v in (0, 1) for v in given):
        raise Invalid("labels", "0 or 1")
    if len(given) != len(ids) or len(set(ids)) != len(ids):
        raise Invalid("labels", "one for each id, and no id twice")
    if body.get("kind", "delayed") not in ("delayed", "audit"):
        raise Invalid("kind", "delayed or audit")
    return batch_id, ids, given


def prediction(value: bytes | None, d: int) -> dict[str, Any]:
    """A predictions record whose fields have the types and lengths that asyncapi.json says. Raises Invalid."""
    body = _object(value)
    for name in ("batch_id", "adapter_version", "bundle", "created_at"):
        _text(body, name)
    n = len(_strings(body, "transaction_ids"))
    columns = ["probability", "shadow_probability"]
    columns += ["candidate_probability"] if body.get("candidate_probability") is not None else []
    for name in columns:
        numbers = _list(body, name)
        _numbers(numbers, name)
        if len(numbers) != n or not all(0 <= p <= 1 for p in numbers):
            raise Invalid(name, f"{n} numbers of 0 to 1")
    for name in ("rule", "flag"):
        bits = _list(body, name)
        if len(bits) != n or not all(type(b) is int and b in (0, 1) for b in bits):
            raise Invalid(name, f"{n} numbers 0 or 1")
    for name in ("feature_sums", "feature_squares"):
        sums = _list(body, name)
        _numbers(sums, name)
        if len(sums) != d:
            raise Invalid(name, f"{d} numbers")
    if type(body.get("conflicts")) is not int or body["conflicts"] < 0:
        raise Invalid("conflicts", "a count")
    source(body.get("source"))
    return body


def source(given: Any) -> tuple[str, int, int]:
    """The `source` of a record: topic, partition, offset. Raises Invalid."""
    if not isinstance(given, dict) or type(given.get("topic")) is not str:
        raise Invalid("source", "topic, partition, offset")
    partition, offset = given.get("partition"), given.get("offset")
    if type(partition) is not int or type(offset) is not int:
        raise Invalid("source", "topic, partition, offset")
    return given["topic"], partition, offset


def json_object(value: bytes | None) -> dict[str, Any] | None:
    """Of a record that is no promise of ours to be one (events, control, metrics): None where it is not JSON."""
    try:
        return _object(value)
    except Invalid:
        return None


def names_twice(value: bytes | None) -> bool:
    """Whether an object in it has two fields of one name: parsers differ in which of them they check."""
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len({name for name, _ in pairs}) < len(pairs)
        return dict(pairs)

    try:
        json.loads(value or b"", object_pairs_hook=look)
    except (ValueError, RecursionError):
        return False
    return twice


def _object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise Invalid("", "no value")
    if len(value) > MAX_VALUE_BYTES:
        raise Invalid("", f"more than {MAX_VALUE_BYTES} bytes")
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise Invalid("", f"not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise Invalid("", "not an object")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if type(value) is not str:
        raise Invalid(name, "text is needed")
    return value


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list) or (not 1 <= len(value) <= MAX_ROWS and not name.startswith("feature_")):
        raise Invalid(name, f"a list of 1 to {MAX_ROWS}")
    return value


def _strings(body: dict[str, Any], name: str) -> list[str]:
    value = _list(body, name)
    if not all(type(v) is str for v in value):
        raise Invalid(name, "texts are needed")
    return value


def _numbers(given: Any, name: str) -> None:
    if not isinstance(given, list) or not all(type(v) in (int, float) for v in given):
        raise Invalid(name, "numbers are needed")
    if not all(-np.inf < v < np.inf for v in given):
        raise Invalid(name, "finite numbers are needed")
