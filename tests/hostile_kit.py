"""Every decoder behind one door: bytes of a stranger go in, and either they are taken or a clear error comes out.

tests/test_hostile_*.py feed them what Hypothesis makes up, tests/fuzz/harness.py what atheris finds; what it found once
is kept in tests/fuzz/corpus and run by tests/test_hostile_corpus.py.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from monitor_kit import setup

from healer.rows import join
from healer.stale import plan
from monitor.decide import Input, fold
from monitor.setup import Setup
from monitor.state import Core, State, load
from monitor.thresholds import read_thresholds
from producer.csv_source import CsvSource
from scorer.catalog import Catalog
from scorer.decode import Decoder
from selfheal.tail import as_json
from selfheal.tail_lines import line
from shared import bundle as bundles
from shared.adapters import unpack
from shared.bundle import Bundle
from shared.errors import OperatorError, Refused
from shared.forward import Network
from shared.kafka import Taken
from shared.manifest import Costs, FeatureStatistics, Manifest, Rule, Scores
from shared.manifest import Thresholds as Flags
from shared.records import HealRequest, Source, decode, decode_event
from shared.topics import TOPICS, Name

FEATURES = ["V14", "noise"]
HIDDEN = 4
AT = "2026-02-02T00:00:00Z"
Target = Callable[[bytes], None]


@cache
def folder() -> Path:
    """Of a small bundle, and for files that are read."""
    made = Path(tempfile.mkdtemp(prefix="hostile-"))
    rng = np.random.default_rng(0)
    bundles.save(
        made / "bundle", manifest(),
        {k: rng.normal(size=s).astype(np.float32) for k, s in bundles.weight_shapes(len(FEATURES), HIDDEN).items()},
        rng.normal(size=(200, len(FEATURES))).astype(np.float32), (np.arange(200) % 2).astype(np.int8),
    )  # fmt: skip
    return made


def manifest() -> Manifest:
    """Of a network with two features."""
    spread = [i / 100 for i in range(101)]
    return Manifest(
        schema=bundles.SCHEMA, features=FEATURES, hidden=HIDDEN, rule=Rule(feature="V14", op="<", threshold=-1.0),
        watched="V14", thresholds=Flags(), costs=Costs(), fraud_rate=0.1,
        clean=Scores(accuracy=0.9, precision=0.8, recall=0.7, f1=0.75),
        statistics={n: FeatureStatistics(mean=0.0, deviation=1.0, quantiles=spread) for n in FEATURES},
        training={"seed": 0}, weights_sha256="", reference_sha256="",
    )  # fmt: skip


@cache
def bundle() -> Bundle:
    return bundles.load(folder() / "bundle")


@cache
def monitor() -> Setup:
    return setup(bundle=bundle().hash)


def taken(value: bytes | None, topic: str = "t", key: bytes | None = b"k", **headers: bytes) -> Taken:
    return Taken(topic, 0, 0, 0, key, value, headers)


def transactions(value: bytes) -> None:
    """By the scorer and by the healer: what one takes the other takes too, as the same numbers."""
    try:
        seen = Decoder(len(FEATURES)).decode(value)
    except Refused as refused:
        clear(refused)
        seen = None
    try:
        rows = join([taken(value)], [], len(FEATURES), 10_000)
    except Refused as refused:
        clear(refused)
        assert seen is None
        return
    assert seen is not None
    assert np.isfinite(rows.x).all()
    assert rows.x.shape == seen.x.shape
    assert np.array_equal(rows.x, seen.x)


def labels(value: bytes) -> None:
    """By the healer; the monitor's way is `folded`."""
    batch = b'{"batch_id":"b","transaction_ids":["1"],"features":[[0,0]],"created_at":"x"}'
    guarded(lambda: join([taken(batch)], [taken(value)], len(FEATURES), 10_000))


def folded(name: Name) -> Target:
    """By the monitor. What it refuses leaves its state as it was, and what it keeps can be read again."""

    def target(value: bytes) -> None:
        state = State(Core(bundle=bundle().hash))
        state.changes()
        try:
            fold(state, monitor(), Input(name, Source(topic=name, partition=0, offset=0), b"k", value, {}), AT)
        except Refused as refused:
            clear(refused)
            assert state.changes() == {}
            return
        parts = {k: v for k, v in state.changes().items() if v is not None}
        known = {"core": msgspec.json.encode(state.core), "fidi": msgspec.json.encode(state.window)}
        assert load(known | parts) is not None

    return target


def heal_request(value: bytes) -> None:
    """By the healer, up to where it would fetch the rows."""
    plan([taken(value)], 0, 60.0, bundle().hash)
    guarded(lambda: decode(HealRequest, value))


def control(value: bytes) -> None:
    """By a scorer: what it serves is one of the versions that it has loaded, whatever the order says."""
    catalog = Catalog(bundle(), Network.of(bundle()))
    for key in (b"active", b"candidate", b"pin", b"thresholds", value[:20], None):
        problem = catalog.control(taken(value, key=key))
        assert problem is None or problem.reason
    assert catalog.view().active.version == "v1"


def event(value: bytes) -> None:
    guarded(lambda: decode_event(value))


def metrics(value: bytes) -> None:
    kind = TOPICS["metrics"].kind
    assert kind is not None
    guarded(lambda: decode(kind, value))


def adapter(value: bytes) -> None:
    """The bytes under headers that fit them, so that the hash keeps nothing out: by the scorer, and by unpack alone."""
    headers = fitting(value)
    guarded(lambda: unpack(b"v2", value, headers, bundle()))
    catalog = Catalog(bundle(), Network.of(bundle()))
    kept = catalog.adapter(Taken("adapters", 0, 0, 0, b"v2", value, dict(headers)))
    problem = kept or catalog.look_into("v2")
    view = catalog.view()
    assert (problem is None) == ("v2" in view.loaded) == ("v2" not in view.refused)
    assert view.active.version == "v1"


def fitting(value: bytes) -> Mapping[str, bytes]:
    """Headers of an adapters record with this value."""
    text = {
        "version": "v2", "parent": "v1", "bundle": bundle().hash, "request": "r", "stage": "post-heal",
        "sha256": hashlib.sha256(value).hexdigest(), "summary": "{}", "at": AT,
    }  # fmt: skip
    return {k: v.encode() for k, v in text.items()}


def bundle_file(name: str) -> Target:
    """In place of one file of a bundle; the manifest names its hash, so that the hash keeps nothing out."""

    def target(value: bytes) -> None:
        whole, spoilt = folder() / "bundle", folder() / f"spoilt-{name}"
        spoilt.mkdir(exist_ok=True)
        raw = {p.name: p.read_bytes() for p in whole.iterdir()}
        raw[name] = value
        if name != "bundle.json":
            body = msgspec.json.decode(raw["bundle.json"])
            body[f"{name.partition('.')[0]}_sha256"] = hashlib.sha256(value).hexdigest()
            raw["bundle.json"] = msgspec.json.encode(body)
        for each, data in raw.items():
            (spoilt / each).write_bytes(data)
        guarded(lambda: Network.of(bundles.load(spoilt)))

    return target


def thresholds(value: bytes) -> None:
    path = folder() / "thresholds.json"
    path.write_bytes(value)
    guarded(lambda: read_thresholds(path))


def csv_file(value: bytes) -> None:
    """Whatever is in a file, only finite rows of the bundle's width come out."""
    path = folder() / "rows.csv"
    path.write_bytes(value)

    def read() -> None:
        for batch in CsvSource(path, FEATURES, rows=10, label="label", amount="amount", id="id").batches():
            assert batch.rows.shape[1] == len(FEATURES)
            assert np.isfinite(batch.rows).all()

    guarded(read)


def shown(value: bytes) -> None:
    """By `selfheal tail`: as text, on one line of printable characters, and as JSON."""
    for name in TOPICS:
        for record in (taken(value), taken(value, key=value, version=value, sha256=value, reason=value, field=value)):
            text = line(name, record).plain
            assert all(c.isprintable() for c in text), text
            assert b"\n" not in as_json(name, record).rstrip(b"\n")


def state(value: bytes) -> None:
    """The monitor's own topic, spoilt."""
    core = msgspec.json.encode(Core(bundle="b"))
    for parts in (
        {"core": value, "fidi": b"[]"}, {"core": core, "fidi": value},
        {"core": core, "fidi": b"[]", "pending/b": value},
        {"core": core, "fidi": b"[]", "early/b": value}, {"core": core, "fidi": b"[]", "done/0": value},
        {"core": core, "fidi": b"[]", "registry/v3": value}, {"core": core, "fidi": b"[]", "guard": value},
        {"core": core, "fidi": b"[]", "learning": value}, {"core": core, "fidi": b"[]", value[:9].hex(): value},
    ):  # fmt: skip
        guarded(lambda parts=parts: load(parts))


def guarded(call: Callable[[], object]) -> None:
    """Taken, or refused in words."""
    try:
        call()
    except (Refused, OperatorError) as exc:
        clear(exc)


def clear(exc: Refused | OperatorError) -> None:
    """It says something, and not without end."""
    assert 0 < len(str(exc)) < 20_000, len(str(exc))


TARGETS: dict[str, Target] = {
    "transactions": transactions, "labels": labels, "heal-request": heal_request, "control": control, "event": event,
    "shown": shown, "metrics": metrics, "adapter": adapter, "state": state, "thresholds": thresholds, "csv": csv_file,
    **{f"folded-{name}": folded(name) for name in ("predictions", "labels", "events")},
    **{f"bundle-{name.partition('.')[0]}": bundle_file(name)
       for name in ("bundle.json", "weights.safetensors", "reference.safetensors")},
}  # fmt: skip
