"""An adapter as bytes: what goes round comes round, and nothing else gets in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load, save

from shared.adapters import MAX_ADAPTER_BYTES, Adapter, first_adapter, optim_shapes, pack, unpack
from shared.bundle import Bundle
from shared.errors import Refused


class Wire(NamedTuple):
    """One adapters record."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    def with_value(self, value: bytes) -> Wire:
        """Another value, whose hash the header names rightly."""
        return self._replace(value=value, headers=self.headers | {"sha256": hashlib.sha256(value).hexdigest().encode()})

    def with_tensors(self, change: Callable[[dict[str, np.ndarray]], object]) -> Wire:
        tensors = load(self.value)
        change(tensors)
        return self.with_value(save(tensors))


def a_healed_adapter(bundle: Bundle) -> Adapter:
    rng = np.random.default_rng(3)
    start = first_adapter(bundle)
    return msgspec.structs.replace(
        start,
        version="v3",
        parent="v2",
        shift=rng.normal(size=len(bundle.features)).astype(np.float32),
        logit_shift=0.25,
        reflex={k: (v + rng.normal(size=v.shape)).astype(np.float32) for k, v in start.reflex.items()},
        optim={
            name.removeprefix("optim."): rng.random(shape, dtype=np.float32)
            for name, shape in optim_shapes(bundle.manifest.hidden).items()
        },
    )


def on_the_wire(adapter: Adapter) -> Wire:
    value, headers = pack(adapter, request="r", stage="post-heal", summary={"rows": 100}, at="2026-01-01T00:00:00Z")
    return Wire(adapter.version.encode(), value, {k: v.encode() for k, v in headers.items()})


@pytest.fixture
def wire(bundle: Bundle) -> Wire:
    return on_the_wire(a_healed_adapter(bundle))


def test_unpack_gives_back_what_pack_took(bundle: Bundle) -> None:
    adapter = a_healed_adapter(bundle)
    found = unpack(*on_the_wire(adapter), bundle)
    assert (found.version, found.parent, found.bundle, found.logit_shift) == ("v3", "v2", bundle.hash, 0.25)
    assert found.aligned
    np.testing.assert_array_equal(found.shift, adapter.shift)
    np.testing.assert_array_equal(found.scale, adapter.scale)
    for theirs, ours in ((found.reflex, adapter.reflex), (found.optim, adapter.optim)):
        assert theirs.keys() == ours.keys()
        for name, tensor in ours.items():
            np.testing.assert_array_equal(theirs[name], tensor)


def test_the_same_adapter_is_the_same_bytes(bundle: Bundle) -> None:
    assert on_the_wire(a_healed_adapter(bundle)) == on_the_wire(a_healed_adapter(bundle))


def test_the_first_adapter_is_the_identity(bundle: Bundle) -> None:
    first = first_adapter(bundle)
    assert (first.version, first.parent, first.aligned, first.logit_shift, first.optim) == ("v1", "v1", False, 0.0, {})
    assert not first.reflex["reflex.2.weight"].any()
    assert not first.reflex["reflex.2.bias"].any()


def test_an_adapter_without_an_optimiser_loads(bundle: Bundle) -> None:
    bare = msgspec.structs.replace(a_healed_adapter(bundle), optim={})
    assert unpack(*on_the_wire(bare), bundle).optim == {}


BAD_TENSORS: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "missing": (lambda t: t.pop("reflex.2.weight"), "reflex.2.weight is missing"),
    "missing alignment": (lambda t: t.pop("align.shift"), "align.shift is missing"),
    "half an optimiser": (lambda t: t.pop("optim.exp_avg.reflex.scale"), "optim.exp_avg.reflex.scale is missing"),
    "other shape": (
        lambda t: t.update({"reflex.0.bias": np.zeros(63, np.float32)}),
        r"reflex.0.bias has shape \(63,\)",
    ),
    "a number for a scalar": (lambda t: t.update({"logit_shift": np.zeros(1, np.float32)}), "logit_shift has shape"),
    "other dtype": (lambda t: t.update({"reflex.scale": np.array(0.1)}), "reflex.scale is float64, not float32"),
    "not a number": (lambda t: t["reflex.0.weight"].put(5, np.nan), "reflex.0.weight holds .* not finite"),
    "infinite": (lambda t: t["align.shift"].put(0, -np.inf), "align.shift holds .* not finite"),
    "optimiser not a number": (
        lambda t: t["optim.exp_avg_sq.reflex.0.weight"].put(0, np.nan),
        "optim.exp_avg_sq.reflex.0.weight holds .* not finite",
    ),
    "a scale of zero": (lambda t: t["align.scale"].put(3, 0), "align.scale holds a zero"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_are_refused_by_name(wire: Wire, bundle: Bundle, case: str) -> None:
    change, message = BAD_TENSORS[case]
    with pytest.raises(Refused, match=message):
        unpack(*wire.with_tensors(change), bundle)


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_truncated_bytes_are_refused_whether_or_not_the_hash_fits(wire: Wire, bundle: Bundle, cut: int) -> None:
    with pytest.raises(Refused, match="SHA-256"):
        unpack(*wire._replace(value=wire.value[:cut]), bundle)
    with pytest.raises(Refused, match="not safetensors"):
        unpack(*wire.with_value(wire.value[:cut]), bundle)


@pytest.mark.parametrize("value", [b"\x80\x04K\x01.", b"{}", b"\xff" * 64, (2**63).to_bytes(8, "little") + b"{}"])
def test_what_is_not_safetensors_is_refused(wire: Wire, bundle: Bundle, value: bytes) -> None:
    with pytest.raises(Refused, match="not safetensors"):
        unpack(*wire.with_value(value), bundle)


def test_a_changed_bit_is_refused(wire: Wire, bundle: Bundle) -> None:
    bent = bytearray(wire.value)
    bent[-1] ^= 1
    with pytest.raises(Refused, match="SHA-256"):
        unpack(*wire._replace(value=bytes(bent)), bundle)


def test_oversize_is_refused_before_it_is_read(wire: Wire, bundle: Bundle) -> None:
    with pytest.raises(Refused, match=f"at most {MAX_ADAPTER_BYTES} are taken"):
        unpack(*wire.with_value(wire.value + bytes(MAX_ADAPTER_BYTES)), bundle)


@pytest.mark.parametrize(
    ("headers", "field"),
    [({"bundle": b"0" * 64}, "bundle"), ({"version": b"v4"}, "version"), ({"sha256": b"\xff"}, "sha256")],
)
def test_headers_that_do_not_fit_are_refused_by_field(
    wire: Wire, bundle: Bundle, headers: dict[str, bytes], field: str
) -> None:
    with pytest.raises(Refused) as refused:
        unpack(*wire._replace(headers=wire.headers | headers), bundle)
    assert refused.value.field == field


@pytest.mark.parametrize("missing", ["version", "bundle", "sha256"])
def test_a_missing_header_is_refused(wire: Wire, bundle: Bundle, missing: str) -> None:
    headers = {k: v for k, v in wire.headers.items() if k != missing}
    with pytest.raises(Refused) as refused:
        unpack(*wire._replace(headers=headers), bundle)
    assert refused.value.field == missing


def test_another_key_than_the_version_is_refused(wire: Wire, bundle: Bundle) -> None:
    with pytest.raises(Refused, match="is not the version"):
        unpack(*wire._replace(key=b"v9"), bundle)


@pytest.mark.parametrize("absent", ["key", "value"])
def test_no_key_or_no_value_is_refused(wire: Wire, bundle: Bundle, absent: str) -> None:
    with pytest.raises(Refused, match="no value or no key"):
        unpack(*wire._replace(**{absent: None}), bundle)


def test_nobody_publishes_the_bundles_own(bundle: Bundle) -> None:
    with pytest.raises(Refused, match="never published"):
        unpack(*on_the_wire(first_adapter(bundle)), bundle)
