"""Whatever a stranger writes to a topic is taken as what it says, or refused in words that name the field."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hostile_kit import AT, FEATURES, TARGETS, bundle, taken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monitor_kit import finished, labels, prediction

from monitor.decide import Input
from scorer.catalog import Catalog
from shared.errors import Refused
from shared.forward import Network
from shared.kafka import Taken
from shared.records import (
    Control,
    Event,
    HealRequest,
    Labels,
    Metrics,
    OffsetRange,
    Prediction,
    Transactions,
    decode,
    encode,
)

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 2**63, -(2**63), 10**400, 0.5, 1e308, -1e308, 5e-324, "", "x", "v1", "v2", "NaN", "\x00",
    "é" * 300, "x" * 10_000, [], {}, [[]], [None], [1e39], [[1e39, 0]], [0] * 1_001, {"topic": "x"}, [{"a": [[{}]]}],
]  # fmt: skip


def _value(record: Input) -> bytes:
    assert record.value is not None
    return record.value


SPAN = OffsetRange(topic="transactions", partition=0, start=0, end=1)
VALID: dict[str, bytes] = {
    "transactions": encode({
        "batch_id": "b", "transaction_ids": ["1", "2"], "features": [[0.5, 1], [-2, 3e-5]], "created_at": AT,
        "amounts": [1.5, 2],
    }),
    "labels": _value(labels("b")),
    "heal-request": encode(HealRequest(
        request_id="heal-1", policy="reference", reason="r", base_version="v1", bundle="b", batch_id="b", at=AT,
        transactions=[SPAN], labels=[SPAN], parameters={"heal_steps": 5.0},
    )),
    "control": encode(Control(setting="active", at=AT, by="x", reason="r", version="v2", values={"a": 1.0})),
    "event": encode(Event(at=AT, kind="heal-finished", message="m", facts={"a": [1, {"b": None}]})),
    "metrics": encode(Metrics(batch_idx=1, batch_id="b", timestamp=AT, rows=1, z_score=None, n_conflicts=0)),
    "folded-predictions": _value(prediction("b", bundle=bundle().hash)),
    "folded-labels": _value(labels("b")),
    "folded-events": _value(finished("heal-1", "v3")),
    "shown": _value(prediction("b", bundle=bundle().hash)),
}  # fmt: skip


def places(body: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    children = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def replaced(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@st.composite
def spoilt(draw: st.DrawFn, valid: bytes) -> bytes:
    """A good record with some places changed, in the JSON or in its bytes."""
    body = json.loads(valid)
    for _ in range(draw(st.integers(0, 2))):
        junk = st.sampled_from(HOSTILE) | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        )
        body = replaced(body, draw(st.sampled_from(places(body))), draw(junk))
    value = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    cut = draw(st.integers(0, 40)) if draw(st.booleans()) else 0
    value = value[: len(value) - cut]
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(st.binary(max_size=3)) + value[at + draw(st.integers(0, 3)) :]


@pytest.mark.parametrize("target", VALID)
@OFTEN
@given(data=st.data())
def test_a_spoilt_record_is_taken_or_refused(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(spoilt(VALID[target])))


@pytest.mark.parametrize("target", VALID)
@OFTEN
@given(value=st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(target: str, value: bytes) -> None:
    TARGETS[target](value)


@pytest.mark.parametrize("target", VALID)
@pytest.mark.parametrize(
    "value",
    [b"[" * 1_000_000, b'{"a":' * 200_000, b'"' + b"x" * 3_000_000 + b'"', b"1" * 1_000_000, b"\x00" * 1_000_000],
    ids=["arrays", "objects", "a string", "a number", "zeros"],
)  # fmt: skip
def test_what_is_large_or_deep_is_refused_at_once(target: str, value: bytes) -> None:
    """The suite's own time-out, and no stack that overflows."""
    TARGETS[target](value)


FIELDS: list[tuple[type[msgspec.Struct], str, Any, str]] = [
    (Transactions, "transactions", {"batch_id": ""}, "batch_id"),
    (Transactions, "transactions", {"batch_id": 7}, "batch_id"),
    (Transactions, "transactions", {"features": [[1, 2], [3, "x"]]}, "features[1][1]"),
    (Transactions, "transactions", {"features": []}, "features"),
    (Transactions, "transactions", {"transaction_ids": ["x"] * 1_001}, "transaction_ids"),
    (Transactions, "transactions", {"amounts": {}}, "amounts"),
    (Labels, "labels", {"labels": [1, 2, 0, 0]}, "labels[1]"),
    (Labels, "labels", {"kind": "guessed"}, "kind"),
    (Prediction, "folded-predictions", {"source": {"topic": "t", "partition": -1, "offset": 0}}, "source.partition"),
    (Prediction, "folded-predictions", {"probability": [0.1, None]}, "probability[1]"),
    (HealRequest, "heal-request", {"transactions": []}, "transactions"),
    (HealRequest, "heal-request", {"labels": [{"topic": "t", "partition": 0, "start": 0}]}, "labels[0].end"),
    (HealRequest, "heal-request", {"transactions": [SPAN] * 10_001}, "transactions"),
    (HealRequest, "heal-request", {"policy": "pray"}, "policy"),
    (HealRequest, "heal-request", {"parameters": {"heal_steps": "5"}}, "parameters[...]"),
    (Control, "control", {"setting": "everything"}, "setting"),
    (Control, "control", {"version": 3}, "version"),
    (Control, "control", {"values": {"a": "x"}}, "values[...]"),
    (Metrics, "metrics", {"rows": -1}, "rows"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sample", "wrong", "field"), FIELDS)
def test_a_refusal_names_the_field(kind: type[msgspec.Struct], sample: str, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as told:
        decode(kind, encode({**json.loads(VALID[sample]), **wrong}))
    assert told.value.field == field
    for name in (n for n in kind.__struct_fields__ if n in json.loads(VALID[sample]) and n in _required(kind)):
        with pytest.raises(Refused) as told:
            decode(kind, encode({k: v for k, v in json.loads(VALID[sample]).items() if k != name}))
        assert told.value.field == name


def _required(kind: type[msgspec.Struct]) -> list[str]:
    return [f.name for f in msgspec.structs.fields(kind) if f.required]


class Orders:
    """A scorer's catalog, and a stranger who writes to its control topic."""

    def __init__(self) -> None:
        self.catalog = Catalog(bundle(), Network.of(bundle()))

    def __call__(self, key: bytes | None, value: bytes | None) -> str | None:
        problem = self.catalog.control(Taken("control", 0, 7, 0, key, value, {}))
        return None if problem is None else f"{problem.record} {problem.field}: {problem.reason}"

    def active(self) -> str:
        return self.catalog.view().active.version


def order(**more: Any) -> bytes:
    return encode({"setting": "active", "at": AT, "by": "x", "reason": "r", "version": "v2", **more})


def test_a_strangers_orders_change_nothing_that_is_not_there() -> None:
    orders = Orders()
    assert orders(b"active", b"not JSON") is not None
    assert "control/0/7 setting" in str(orders(b"active", order(setting="everything")))
    assert "control/0/7 setting" in str(orders(b"active", order(setting="pin")))  # under another key
    assert orders(b"everything", order(setting="everything")) is None  # a setting of a later program
    assert orders(None, order()) is None
    for version in ("v2", "v999999999999999999", "", "v1\x00", "x" * 1_000_000):
        assert orders(b"active", order(version=version)) is None
        assert orders(b"candidate", order(setting="candidate", version=version)) is None
        assert orders.active() == "v1"
        assert orders.catalog.view().candidate is None
    for at in ("9999-12-31T23:59:59Z", "", "yesterday", "\x00"):
        assert orders(b"active", order(version="v1", at=at)) is None
        assert orders.active() == "v1"
    assert orders(b"active", None) is None  # a tombstone: nothing is ordered any more
    assert orders.active() == "v1"


def test_a_strangers_orders_leave_no_more_than_a_few_names_behind() -> None:
    """Memory: an order is one of three settings, and the newest takes the place of the one before."""
    orders = Orders()
    for i in range(1_000):
        orders(b"active", order(version=f"v{i + 5}"))
        orders(f"setting-{i}".encode(), order(setting="active"))
    assert len(orders.catalog._named) <= 3


@given(st.lists(st.tuples(st.sampled_from([b"active", b"pin", b"candidate"]), st.binary(max_size=60)), max_size=10))
def test_no_order_makes_a_scorer_serve_what_it_has_not_loaded(given: list[tuple[bytes, bytes]]) -> None:
    orders = Orders()
    for key, value in given:
        orders(key, value)
    assert orders.active() == "v1"


def test_the_kit_takes_what_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that lets nobody in would pass every test above."""
    monkeypatch.setattr("hostile_kit.clear", _refused)
    for target, value in VALID.items():
        TARGETS[target](value)
    assert len(FEATURES) == 2
    assert taken(b"x").value == b"x"


def _refused(exc: Exception) -> None:
    raise AssertionError(f"refused: {exc}") from exc
