"""From bytes to a batch: what is valid, what is to blame, and that the fast way never differs from the slow one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scorer.decode import Batch, Decoder, slow
from shared.errors import Refused
from shared.topics import MAX_RECORD_BYTES

D = 3


def body(n: int = 2, **more: Any) -> dict[str, Any]:
    rows = [[0.5 * i + j for j in range(D)] for i in range(n)]
    ids = [f"t{i}" for i in range(n)]
    return {"batch_id": "b1", "transaction_ids": ids, "features": rows, "created_at": "2026-01-01T00:00:00Z"} | more


def encoded(**more: Any) -> bytes:
    return json.dumps(body() | more).encode()


def verdict(decode: Any, value: bytes | None) -> Batch | tuple[str, str | None]:
    try:
        batch: Batch = decode(value)
    except Refused as refused:
        return refused.reason, refused.field
    return batch


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, Batch) or not isinstance(other, Batch):
        return bool(one == other)
    return one.x.tobytes() == other.x.tobytes() and one.x.shape == other.x.shape and one[:2] == other[:2]


def agree(value: bytes) -> None:
    """The fast way takes only what the slow one takes, as the same values; what it leaves goes to the slow one."""
    decoder = Decoder(D)
    quick, sure = decoder.fast(value), verdict(lambda v: slow(v, D), value)
    assert quick is None or same(quick, sure), (value, quick, sure)
    assert same(verdict(decoder.decode, value), sure)


def test_a_good_batch():
    batch = Decoder(D).decode(encoded(amounts=[1, 2.5], more={"unknown": [1, [2]]}))
    assert batch.batch_id == "b1"
    assert batch.ids == ["t0", "t1"]
    assert batch.x.dtype == np.float32
    assert batch.x.tolist() == [[0, 1, 2], [0.5, 1.5, 2.5]]
    assert batch.created_at == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("spaces", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_ordinary_batches_take_the_fast_way(spaces, rows):
    value = json.dumps(body(rows), separators=spaces).encode()
    assert Decoder(D).fast(value) is not None
    agree(value)


NAN, INFINITY = float("nan"), float("inf")
ROWS = [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "no value", None),
        (b"", "not JSON", None),
        (b"junk", "not JSON", None),
        (b"\xff\xfe{}", "not JSON", None),
        (b"[" * 100_000, "not JSON|got `array`", None),
        (b'{"batch_id": ' + b"[" * 100_000, "got `array`", "batch_id"),
        (b"\xef\xbb\xbf" + encoded(), "not JSON", None),
        (encoded() + b"{}", "not JSON", None),
        (b"[]", "Expected `object`", None),
        (b"null", "Expected `object`", None),
        (b"{}", "missing required field `batch_id`", "batch_id"),
        (b'{"batch_id":"b","transaction_ids":["t"],"created_at":""}', "missing required field", "features"),
        (encoded(batch_id=7), "Expected `str`", "batch_id"),
        (encoded(batch_id=""), "length >= 1", "batch_id"),
        (encoded(batch_id="b" * 201), "length <= 200", "batch_id"),
        (encoded(created_at=None), "Expected `str`", "created_at"),
        (encoded(transaction_ids=[], features=[]), "length >= 1", "transaction_ids"),
        (encoded(transaction_ids=["t0"]), "2 rows for 1 transaction ids", "features"),
        (encoded(transaction_ids=["t0", "t0"]), "occurs twice", "transaction_ids"),
        (encoded(transaction_ids=["t0", 1]), "Expected `str`", "transaction_ids[1]"),
        (encoded(transaction_ids=["t0", ["t1"]]), "Expected `str`", "transaction_ids[1]"),
        (encoded(transaction_ids="t0"), "Expected `array`", "transaction_ids"),
        (encoded(features=[[1, 2, 3], [4, 5]]), "2 features, the bundle has 3", "features[1]"),
        (encoded(features=[[1, 2, 3, 4], [5, 6]]), "4 features, the bundle has 3", "features[0]"),
        (encoded(features=[[1, 2], 3, [4, 5, 6]]), "Expected `array`", "features[1]"),
        (encoded(features=[[1, 2, 3], [4, [], 5, 6]]), "Expected `float`", "features[1][1]"),
        (encoded(features=[[1, 2, 3], [4, [5], 6]]), "Expected `float`", "features[1][1]"),
        (encoded(features=[[1, 2, 3], {"a": 4, "b": 5, "c": 6}]), "Expected `array`", "features[1]"),
        (encoded(features=[[1, 2, 3], "456"]), "Expected `array`", "features[1]"),
        (encoded(features=[[1, 2, 3], [4, 5, None]]), "Expected `float`", "features[1][2]"),
        (encoded(features=[[1, 2, 3], [4, 5, True]]), "Expected `float`", "features[1][2]"),
        (encoded(features=[[1, 2, 3], [4, 5, NAN]]), "NaN", "features[1][2]"),
        (encoded(features=[[1, -INFINITY, 3], [4, 5, 6]]), "infinity", "features[0][1]"),
        (encoded().replace(b"2.5", b"1e999"), "infinity", "features[1][2]"),
        (encoded(features=[[1, 2, 3], [4, 1e300, 6]]), "too large for float32", "features[1][1]"),
        (encoded(features=[[1, 2, 3], [4, 10**40, 6]]), "too large for float32", "features[1][1]"),
        (encoded(amounts=[1]), "1 amounts for 2", "amounts"),
        (encoded(amounts=[1, "2"]), "Expected `float`", "amounts[1]"),
        (encoded(amounts=[1, NAN]), "NaN", "amounts[1]"),
        (encoded(amounts=[[1], [2]]), "Expected `float`", "amounts[0]"),
        (b"x" * 1024 * 1024, "not JSON", None),
        (json.dumps(body(1001)).encode(), "length <= 1000", "transaction_ids"),
        (encoded().replace(b"b1", rb"\ud800"), "not JSON", None),
        (encoded().replace(b"b1", b"\xff"), "not JSON", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_batch_names_what_is_wrong(value, reason, field):
    with pytest.raises(Refused, match=reason) as refused:
        Decoder(D).decode(value)
    assert refused.value.field == field
    agree(value or b"")


def test_a_message_too_large_is_refused_unread():
    with pytest.raises(Refused, match="4194305 bytes"):
        Decoder(D).decode(b"x" * (MAX_RECORD_BYTES + 1))
    padded = encoded()[:-1] + b" " * (MAX_RECORD_BYTES - len(encoded())) + b"}"
    assert len(padded) == MAX_RECORD_BYTES
    assert Decoder(D).decode(padded).batch_id == "b1"


def test_the_parser_recovers_after_every_refusal():
    decoder = Decoder(D)
    for bad in (b"junk", encoded(features=[[1, 2], 3, [4, 5, 6]]), b'{"batch_id": ' + b"[" * 100_000):
        with pytest.raises(Refused):
            decoder.decode(bad)
        assert decoder.fast(encoded()) is not None


@pytest.mark.parametrize("number", ["-0", "-0.0", "0", "-0e5"])
def test_zero_has_one_sign(number):
    value = encoded().replace(b"2.5", number.encode())
    for batch in (Decoder(D).decode(value), slow(value, D)):
        assert not np.signbit(batch.x[1, 2])


NUMBERS = ["0", "-0", "-1.5e-3", "1e38", "3.4028235677973366e38", "3.5e38", "1e300", "1e999", "1e-400", "0.1", "NaN"]
NUMBERS += ["-Infinity", "18446744073709551616", "9007199254740993", "1" * 400, "01", ".5", "1.", "true", "null", '"1"']
NUMBERS += ["[]", "[1]", "{}", "1,2", "1,[2]", "1],[2", "1]],[[2", "123456789012345678901234567890.123456789"]
SPOILS = [b"[", b"]", b",", b'"', b"{", b"}", b":", b"\\", b"\0", b"\xff", b" ", b"0", b"-", b'"\\ud800"', b"\xc3\xa9"]
SPOILS += [b'"batch_id":"x",', b'"features":[],', b'"amounts":null,', b'"amounts":[],', b'"more":[1],', b'"t0"']


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Good batches and neighbours of good batches."""
    n = draw(st.integers(0, 3))
    number = st.one_of(st.floats(allow_nan=False).map(repr), st.integers().map(str), st.sampled_from(NUMBERS))
    rows = [[draw(number) for _ in range(draw(st.sampled_from([D, D, D, D, 2, 4])))] for _ in range(n)]
    text = "[" + ",".join("[" + ",".join(row) + "]" for row in rows) + "]"
    ids = draw(st.lists(st.text(max_size=3), min_size=n, max_size=n, unique=draw(st.booleans())))
    parts = [
        '"batch_id":' + json.dumps(draw(st.text(max_size=3))),
        '"transaction_ids":' + json.dumps(ids, ensure_ascii=draw(st.booleans())),
        '"features":' + text,
        '"created_at":"2026-01-01"',
    ]
    if draw(st.booleans()):
        parts.append('"amounts":' + draw(st.sampled_from(["null", "[]", "[1,2]", f"[{','.join(['1.5'] * n)}]", "1"])))
    value = ("{" + ",".join(draw(st.permutations(parts))) + "}").encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(value)))
        cut = draw(st.sampled_from([0, 0, 1, 4]))
        value = value[:at] + draw(st.sampled_from([b"", *SPOILS])) + value[at + cut :]
    return value


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
@example(encoded()[:-1] + b',"batch_id":"b2"}')
@example(encoded(note="[[["))
@example(encoded(features=[[1, 2, 3], [[4, 5, 6]]]))
@example(encoded(features=[[1, 2], 3, []], transaction_ids=["a", "b", "c"]))
@example(encoded(features=[[], [1, 2, 3], [4, 5, 6]], transaction_ids=["a", "b", "c"]))
def test_the_fast_way_agrees_with_the_slow_one(value):
    agree(value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=40))
def test_any_bytes_are_answered(value):
    agree(value)
