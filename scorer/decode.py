"""A transactions message to what the network takes, or the reason why not.

Two ways. The fast one (simdjson) takes a message only where it is sure of every rule; whatever it does not take goes
to the slow one, which is the definition of valid (shared.records) and finds the field to blame. So the fast way must
never take what the slow one would refuse, nor read another value from it: a property test holds it.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import simdjson

from shared.bundle import Array
from shared.errors import Refused
from shared.records import MAX_ROWS, Transactions, check_batch, decode
from shared.topics import MAX_RECORD_BYTES

MAX_ID_CHARS = 200  # of shared.records.Id
_OBJECT, _BRACKET = ord("{"), ord("[")
_REQUIRED = 4  # fields that a batch must have
_ZERO = np.zeros((), np.float32)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Batch(NamedTuple):
    """A checked batch. x: (n, d) float32, finite, no negative zeros; ids: n distinct strings."""

    batch_id: str
    ids: list[str]
    x: Array
    created_at: str


class Decoder:
    """Keeps the fast parser's buffers between messages; one per thread. n_features: the bundle's d."""

    def __init__(self, n_features: int) -> None:
        self._d = n_features
        self._parser = simdjson.Parser(MAX_RECORD_BYTES)

    def decode(self, value: bytes | None) -> Batch:
        """Raises Refused, which names what is wrong, and the field where one is to blame."""
        if value is not None and len(value) > MAX_RECORD_BYTES:
            raise Refused(f"{len(value)} bytes, at most {MAX_RECORD_BYTES} are read")
        batch = None if value is None else self.fast(value)
        return slow(value, self._d) if batch is None else batch

    def fast(self, value: bytes) -> Batch | None:
        """The batch, or None where it takes the slow way to be sure."""
        if not value or value[0] != _OBJECT:  # simdjson would skip a byte order mark, JSON has none
            return None
        try:
            doc: Any = self._parser.parse(value)
            amounts = None
            if len(doc) != _REQUIRED:  # with just these many, all found below, no name occurs twice
                names = [*doc]
                if len(set(names)) != len(names):
                    return None  # simdjson would take the first of two, all others take the last
                amounts = doc["amounts"] if "amounts" in names else None
            batch_id, created_at = doc["batch_id"], doc["created_at"]
            ids, rows = doc["transaction_ids"].as_list(), doc["features"]
            n = len(ids)
            if type(batch_id) is not str or type(created_at) is not str or not 1 <= len(batch_id) <= MAX_ID_CHARS:
                return None
            "".join(ids)  # a TypeError unless all are strings
            if not 1 <= n <= MAX_ROWS or len(set(ids)) != n or len(rows) != n:
                return None
            # as_buffer flattens. n rows of length d, and no other array anywhere: then no row holds another.
            brackets = np.count_nonzero(np.frombuffer(value, np.uint8) == _BRACKET)  # twice as fast as bytes.count
            if brackets != n + (2 if amounts is None else 3) or set(map(len, rows)) != {self._d}:
                return None
            if amounts is not None and len(np.frombuffer(amounts.as_buffer(of_type="d"))) != n:
                return None
            numbers: npt.NDArray[np.float64] = np.frombuffer(rows.as_buffer(of_type="d"))
            if numbers.max() > _FLOAT32_MAX or numbers.min() < -_FLOAT32_MAX:
                return None
            x = _float32(numbers).reshape(n, self._d)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            return None  # simdjson's, each for a document that is not as expected
        return Batch(batch_id, ids, x, created_at)


def slow(value: bytes | None, n_features: int) -> Batch:
    """By shared.records alone. Raises Refused."""
    try:
        batch = decode(Transactions, value)
        check_batch(batch, n_features)
    except Refused as refused:
        raise _not_finite(value) or refused from refused
    with np.errstate(over="ignore"):
        x = _float32(np.array(batch.features, np.float64).ravel()).reshape(len(batch.features), n_features)
    if not np.isfinite(x).all():
        i, j = np.argwhere(~np.isfinite(x))[0]
        raise Refused(f"{batch.features[i][j]:g} is too large for float32", f"features[{i}][{j}]")
    return Batch(batch.batch_id, batch.transaction_ids, x, batch.created_at)


def _float32(numbers: npt.NDArray[np.float64]) -> Array:
    """(n,): the same numbers in float32; -0.0, which simdjson does not tell from 0, as 0.0."""
    x: Array = numbers.astype(np.float32)
    x += _ZERO
    return x


def _not_finite(value: bytes | None) -> Refused | None:
    """The refusal that names the first NaN or infinity, which no JSON can spell but the stdlib's parser reads (1e999
    too); None where that is not what is wrong."""
    try:
        body = json.loads(value or b"null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    features, amounts = body.get("features"), body.get("amounts")
    rows = [(f"features[{i}]", row) for i, row in enumerate(features)] if isinstance(features, list) else []
    for path, row in (*rows, ("amounts", amounts)):
        for j, number in enumerate(row if isinstance(row, list) else ()):
            if isinstance(number, float) and not math.isfinite(number):
                return Refused(f"{'NaN' if math.isnan(number) else 'infinity'}, not a finite number", f"{path}[{j}]")
    return None
