"""Adapters, bundles, CSV files, thresholds and settings made to hurt: a clear error, or exactly what they say."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hostile_kit import FEATURES, TARGETS, adapter, bundle, fitting, folder, taken
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from test_hostile_records import OFTEN, spoilt

from monitor.thresholds import Thresholds, read_thresholds
from scorer.catalog import Catalog
from shared import bundle as bundles
from shared.adapters import Adapter, first_adapter, optim_shapes, pack, unpack
from shared.errors import OperatorError, Refused
from shared.forward import Network
from shared.kafka import Taken
from shared.settings import (
    HealerSettings,
    MonitorSettings,
    ProducerSettings,
    ScorerSettings,
    ServiceSettings,
    kafka_settings,
)
from shared.settings import load as load_settings

KINDS: list[type[ServiceSettings]] = [ScorerSettings, HealerSettings, MonitorSettings, ProducerSettings]
RARELY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
Tensors = dict[str, npt.NDArray[Any]]
HEAD = b"V14,noise,label,amount,id\n"


def good_adapter(version: str = "v2") -> tuple[bytes, dict[str, str]]:
    made = msgspec.structs.replace(
        first_adapter(bundle()), version=version, parent="v1", logit_shift=0.5, order=(1, 0),
        optim={k.removeprefix("optim."): np.ones(shape, np.float32) for k, shape in optim_shapes(4).items()},
    )  # fmt: skip
    return pack(made, request="r", stage="post-heal", summary={}, at="x")


GOOD = good_adapter()[0]
SAMPLES = {
    "adapter": GOOD,
    "bundle-bundle": (folder() / "bundle" / "bundle.json").read_bytes(),
    "bundle-weights": (folder() / "bundle" / "weights.safetensors").read_bytes(),
    "thresholds": b'{"rollback_f1_drop": 0.1, "health_window": 5, "heal_lr": 0.01}',
    "csv": b'id;V14;noise;label;amount\n1;0,5;2;1;9\n"2";-1;1e3;0;1\n',
}


@st.composite
def cut_up(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes changed here and there, above all where a header would be; or an end that is missing or too much."""
    value = bytearray(valid)
    for _ in range(draw(st.integers(1, 6))):
        near = draw(st.booleans())
        at = draw(st.integers(0, min(64, len(value)) if near else len(value)))
        value[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(value[: draw(st.integers(0, len(value)))] if draw(st.booleans()) else value)


@pytest.mark.parametrize("target", SAMPLES)
@RARELY
@given(data=st.data())
def test_a_spoilt_file_is_taken_or_refused(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(cut_up(SAMPLES[target]) | st.binary(max_size=300)))


@pytest.mark.parametrize("target", ["bundle-bundle", "thresholds"])
@OFTEN
@given(data=st.data())
def test_a_spoilt_json_file_is_taken_or_refused(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(spoilt(SAMPLES[target])))


DTYPES = [np.float16, np.float64, np.int8, np.int64, np.uint8, np.bool_]


@OFTEN
@given(
    name=st.sampled_from(sorted(load(GOOD))), shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from([np.float32, *DTYPES]),
    number=st.sampled_from([0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 3e38, 1e-45]),
)  # fmt: skip
@example(name="align.scale", shape=[2], dtype=np.float32, number=0.0)
@example(name="align.order", shape=[2], dtype=np.float32, number=1.0)
def test_a_tensor_of_another_shape_kind_or_content_is_named(
    name: str, shape: list[int], dtype: type[np.generic], number: float
) -> None:
    tensors: Tensors = load(GOOD)
    with np.errstate(all="ignore"):
        tensors[name] = np.full(shape, number).astype(dtype)
    fits = tensors[name].shape == load(GOOD)[name].shape and dtype is np.float32 and np.isfinite(number)
    value = save(tensors)
    adapter(value)
    made = outcome(lambda: unpack(b"v2", value, fitting(value), bundle()))
    if isinstance(made, Adapter):
        assert fits
    else:
        assert name in made
        assert not fits or name in ("align.scale", "align.order")


def outcome(call: Callable[[], Any]) -> Any:
    """What came of it, or the refusal's words."""
    try:
        return call()
    except (Refused, OperatorError) as exc:
        return str(exc)


def header(text: bytes, claimed: int | None = None, body: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + body


def entry(offsets: tuple[int, int], shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


BOMBS: dict[str, bytes] = {
    "a header of 8 EiB": header(b"{}", 2**63),
    "a header of all bytes": header(b"{}", 2**64 - 1),
    "a header of 100 MB": header(b"{}", 100_000_000),
    "a header larger than all": header(b" " * 1_900_000),
    "a tensor of 4 TB": header(json.dumps({"align.shift": entry((0, 2**42), [2**40])}).encode()),
    "a shape that overflows": header(
        json.dumps({"align.shift": entry((0, 8), [2**62, 2**62, 4])}).encode(), None, b"\0" * 8
    ),
    "no elements of a huge shape": header(json.dumps({"align.shift": entry((0, 0), [0, 2**60])}).encode()),
    "offsets that run back": header(json.dumps({"align.shift": entry((8, 0), [2])}).encode(), None, b"\0" * 8),
    "offsets that overlap": header(
        json.dumps({"align.shift": entry((0, 8), [2]), "align.scale": entry((4, 12), [2])}).encode(), None, b"\0" * 12
    ),
    "a negative shape": header(json.dumps({"align.shift": entry((0, 8), [-2])}).encode(), None, b"\0" * 8),
    "many names": header(json.dumps({f"x{i}": entry((0, 0), [0]) for i in range(30_000)}).encode()),
    "a deep header": header(b"[" * 1_000_000),
    "a header that is no text": header(b"\xff" * 64),
    "too large": b"\0" * (2 * 1024 * 1024 + 1),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_made_to_hurt_is_refused(name: str) -> None:
    value = BOMBS[name]
    with pytest.raises(Refused) as told:
        unpack(b"v2", value, fitting(value), bundle())
    assert len(str(told.value)) < 5_000
    for target in ("adapter", "bundle-weights", "bundle-reference"):
        TARGETS[target](value)


CHILD = """
import resource, sys
sys.path[:0] = [{tests!r}]
import hostile_kit, test_hostile_files as files
warm = [hostile_kit.TARGETS[t](files.SAMPLES.get(t, b"")) for t in ("adapter", "bundle-weights", "transactions", "csv")]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for value in files.BOMBS.values():
    for target in ("adapter", "bundle-weights", "transactions", "csv", "thresholds"):
        hostile_kit.TARGETS[target](value)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_take_no_more_memory_than_a_few_times_their_size() -> None:
    """The bound that docs/security.md states: an adapter's 2 MiB a few times over, never what a header claims."""
    tests = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(tests=tests)], cwd=Path(tests).parent, capture_output=True, text=True,
        timeout=100, check=True, env={**os.environ, "PYTHONPATH": str(Path(tests).parent)},
    )  # fmt: skip
    grown_mib = int(done.stdout.split()[-1])
    print(f"peak memory grew by {grown_mib} MiB")
    assert grown_mib < 64


def test_the_right_bytes_under_wrong_headers_are_refused_by_name() -> None:
    value, text = good_adapter()
    headers = {k: v.encode() for k, v in text.items()} | {"bundle": bundle().hash.encode()}
    assert unpack(b"v2", value, headers, bundle()).version == "v2"
    cases: list[tuple[bytes | None, dict[str, bytes], str | None]] = [
        (b"v3", {}, "version"), (b"v2", {"version": b"v3"}, "version"), (b"v1", {"version": b"v1"}, "version"),
        (b"v2", {"bundle": b"0" * 64}, "bundle"), (b"v2", {"bundle": b""}, "bundle"),
        (b"v2", {"sha256": b"0" * 64}, "sha256"), (b"v2", {"sha256": b"\xff"}, "sha256"), (None, {}, None),
    ]  # fmt: skip
    for key, change, field in cases:
        with pytest.raises(Refused) as told:
            unpack(key, value, headers | change, bundle())
        assert told.value.field == field


def test_an_older_version_played_again_changes_nothing() -> None:
    catalog = Catalog(bundle(), Network.of(bundle()))

    def play(version: str, value: bytes, text: dict[str, str]) -> str | None:
        headers = {k: v.encode() for k, v in text.items()}
        problem = catalog.adapter(Taken("adapters", 0, 0, 0, version.encode(), value, headers))
        problem = problem or catalog.look_into(version)
        return None if problem is None else problem.reason

    def order(version: str) -> None:
        body = {"setting": "active", "at": "x", "by": "m", "reason": "r", "version": version}
        assert catalog.control(taken(msgspec.json.encode(body), topic="control", key=b"active")) is None

    for version in ("v2", "v3"):
        assert play(version, *good_adapter(version)) is None
    order("v3")
    assert play("v2", *good_adapter("v2")) is None  # the same bytes: nothing new
    assert catalog.view().active.version == "v3"
    tensors = load(GOOD)
    tensors["logit_shift"] = np.array(9.0, np.float32)
    other = save(tensors)
    headers = {k: v.decode() for k, v in fitting(other).items()}
    assert "loaded already, with other bytes" in str(play("v2", other, headers))
    assert catalog.view().loaded["v2"].c == catalog.view().loaded["v3"].c


@OFTEN
@given(
    names=st.lists(st.text(max_size=12), max_size=6),
    rows=st.lists(st.lists(st.text(max_size=8), max_size=6), max_size=6),
    delimiter=st.sampled_from([",", ";", "\t", "|"]), end=st.sampled_from(["\n", "\r\n", "\r", ""]),
)  # fmt: skip
def test_any_table_of_text_is_read_or_refused(
    names: list[str], rows: list[list[str]], delimiter: str, end: str
) -> None:
    lines = [delimiter.join(cells) for cells in [[*FEATURES, "label", "amount", "id", *names], *rows]]
    TARGETS["csv"](end.join(lines).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "value",
    [
        b'"' * 100_001,
        HEAD + b"," * 1_000_000,
        HEAD + b'"' + b"x" * 2_000_000,
        b"\x00" * 1_000_000,
        b"V14" + b",V14" * 100_000,
        b"\n" * 1_000_000,
        "V14,noise\n1,2".encode("utf-16"),
    ],
    ids=["quotes", "cells", "a cell without end", "zeros", "columns", "lines", "another encoding"],
)  # fmt: skip
def test_a_csv_file_made_to_hurt_is_refused(value: bytes) -> None:
    TARGETS["csv"](value)


def test_thresholds_name_every_fault_at_once(tmp_path: Path) -> None:
    path = tmp_path / "threshold_config.json"
    path.write_text('{"health_window": 2.5, "heal_lr": NaN, "conflict_min": "many", "unheard_of": 1}')
    with pytest.raises(OperatorError) as told:
        read_thresholds(path)
    for name in ("health_window", "conflict_min", "unheard_of"):
        assert name in str(told.value)


@OFTEN
@given(
    st.dictionaries(
        st.sampled_from(sorted(Thresholds.model_fields)), st.integers() | st.floats() | st.text(max_size=5) | st.none()
    )
)
def test_thresholds_that_are_taken_are_within_their_bounds(values: dict[str, Any]) -> None:
    path = folder() / "thresholds.json"
    path.write_text(json.dumps(values))
    read = outcome(lambda: read_thresholds(path))
    if isinstance(read, Thresholds):
        assert Thresholds.model_validate(read.model_dump()) == read
    else:
        assert any(name in read for name in [*values, "NaN", "Infinity", "JSON"])


def variables(kind: type[ServiceSettings]) -> list[str]:
    prefix = str(kind.model_config.get("env_prefix", ""))
    return [str(f.validation_alias or f"{prefix}{n}".upper()) for n, f in kind.model_fields.items()]


@pytest.mark.parametrize("kind", KINDS)
@OFTEN
@given(data=st.data())
def test_any_environment_gives_settings_or_names_the_variable(kind: type[ServiceSettings], data: st.DataObject) -> None:
    names = variables(kind)
    text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)
    junk = st.sampled_from(["", "-1", "0", "1e999", "nan", "inf", "true", "[]", "{}", " 5 ", "9" * 400, "0x10"]) | text
    given_env = data.draw(st.dictionaries(st.sampled_from(names), junk, max_size=4))
    before = dict(os.environ)
    os.environ.update(given_env)
    try:
        made = outcome(lambda: load_settings(kind))
    finally:
        for name in given_env:
            os.environ.pop(name, None)
        os.environ.update({k: v for k, v in before.items() if k in given_env})
    if isinstance(made, str):
        assert any(name in made for name in given_env)
    else:
        assert all(not isinstance(v, float) or np.isfinite(v) for v in made.model_dump().values())


@OFTEN
@given(st.dictionaries(st.text(max_size=12).map(lambda t: f"KAFKA_{t}"), st.text(max_size=8), max_size=4))
def test_any_kafka_environment_is_read_or_refused_by_name(env: dict[str, str]) -> None:
    found = outcome(lambda: kafka_settings({"KAFKA_BOOTSTRAP_SERVERS": "here:9092", **env}))
    if isinstance(found, str):
        assert any(name in found for name in env)
    else:
        assert found["bootstrap.servers"]


def test_a_secret_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe\x00")
    for path in (str(file), str(tmp_path), f"{file}\x00", "x" * 5_000):
        env = {"KAFKA_BOOTSTRAP_SERVERS": "here:9092", "KAFKA_SASL_PASSWORD_FILE": path}
        with pytest.raises(OperatorError, match="KAFKA_SASL_PASSWORD_FILE: cannot read"):
            kafka_settings(env)


def test_the_kit_takes_good_files() -> None:
    assert bundles.load(folder() / "bundle").features == FEATURES
    catalog = Catalog(bundle(), Network.of(bundle()))
    assert catalog.adapter(Taken("adapters", 0, 0, 0, b"v2", GOOD, dict(fitting(GOOD)))) is None
    assert catalog.look_into("v2") is None
    assert "v2" in catalog.view().loaded
