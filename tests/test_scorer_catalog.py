"""Which adapter is served: folded from the records of two topics, in whatever order they come."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from scorer.catalog import Catalog, Problem
from shared.adapters import Adapter, first_adapter, pack, unpack
from shared.bundle import Bundle
from shared.forward import Network
from shared.kafka import Taken
from shared.records import Control, encode


@pytest.fixture
def catalog(bundle: Bundle) -> Catalog:
    return Catalog(bundle, Network.of(bundle), keep=5)


def taken(topic: str, key: bytes | None, value: bytes | None, headers: dict[str, bytes] | None = None) -> Taken:
    return Taken(topic, 0, 7, 0, key, value, headers or {})


def adapter(bundle: Bundle, version: str, seed: int = 0, **more: Any) -> Adapter:
    first, rng = first_adapter(bundle), np.random.default_rng(seed)
    reflex = {k: (v + rng.normal(0, 0.1, v.shape)).astype(np.float32) for k, v in first.reflex.items()}
    return msgspec.structs.replace(first, **({"version": version, "reflex": reflex} | more))


def published(bundle: Bundle, version: str, seed: int = 0, **more: Any) -> Taken:
    made = adapter(bundle, version, seed, **more)
    value, headers = pack(made, request="r1", stage="post-heal", summary={}, at="2026-01-01T00:00:00Z")
    return taken("adapters", version.encode(), value, {k: v.encode() for k, v in headers.items()})


def order(setting: str, version: str | None) -> Taken:
    control = Control(setting=setting, version=version, at="2026-01-01T00:00:00Z", by="monitor", reason="test")
    return taken("control", setting.encode(), encode(control))


def served(catalog: Catalog) -> str:
    return catalog.view().active.version


def test_the_bundles_own_adapter_serves_until_told_otherwise(catalog, bundle):
    assert served(catalog) == "v1"
    assert catalog.adapter(published(bundle, "v2")) is None
    assert served(catalog) == "v1"
    assert catalog.control(order("active", "v2")) is None
    assert served(catalog) == "v2"
    catalog.control(order("active", "v1"))
    assert served(catalog) == "v1"


def test_an_order_for_a_version_still_to_come_waits_for_it(catalog, bundle):
    catalog.adapter(published(bundle, "v2"))
    catalog.control(order("active", "v2"))
    catalog.control(order("active", "v3"))
    assert served(catalog) == "v2"
    catalog.adapter(published(bundle, "v3"))
    assert served(catalog) == "v3"


def test_a_pin_wins_until_it_is_taken_away(catalog, bundle):
    for version in ("v2", "v3"):
        catalog.adapter(published(bundle, version))
    catalog.control(order("pin", "v2"))
    catalog.control(order("active", "v3"))
    assert served(catalog) == "v2"
    catalog.control(order("pin", None))
    assert served(catalog) == "v3"
    catalog.control(order("pin", "v1"))
    assert served(catalog) == "v1"
    catalog.control(taken("control", b"pin", None))  # a tombstone
    assert served(catalog) == "v3"


def test_a_candidate_is_beside_the_active_one(catalog, bundle):
    catalog.control(order("candidate", "v2"))
    assert catalog.view().candidate is None
    catalog.adapter(published(bundle, "v2"))
    candidate = catalog.view().candidate
    assert candidate is not None
    assert candidate.version == "v2"
    assert served(catalog) == "v1"
    catalog.control(order("candidate", None))
    assert catalog.view().candidate is None


def spoilt(record: Taken, **headers: str) -> Taken:
    return record._replace(headers=record.headers | {k: v.encode() for k, v in headers.items()})


def huge(bundle: Bundle) -> dict[str, Any]:
    return {k: np.full(v.shape, 3e38, np.float32) for k, v in first_adapter(bundle).reflex.items()}


REFUSED = {
    "hash": (lambda b: spoilt(published(b, "v2"), sha256="0" * 64), "sha256"),
    "bytes": (lambda b: published(b, "v2")._replace(value=b"junk"), "sha256"),
    "bundle": (lambda b: spoilt(published(b, "v2"), bundle="f" * 64), "bundle"),
    "version": (lambda b: spoilt(published(b, "v2"), version="v9"), "version"),
    "no headers": (lambda b: published(b, "v2")._replace(headers={}), "version"),
    "not finite": (lambda b: published(b, "v2", logit_shift=float("nan")), None),
    "too large": (lambda b: published(b, "v2", reflex=huge(b)), None),
    "scale of zero": (lambda b: published(b, "v2", scale=np.zeros(len(b.features), np.float32)), None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_adapter_is_kept_out_and_the_running_one_stays(catalog, bundle, what):
    make, field = REFUSED[what]
    catalog.adapter(published(bundle, "v3"))
    catalog.control(order("active", "v3"))
    catalog.control(order("active", "v2"))
    problem = catalog.adapter(make(bundle))
    assert isinstance(problem, Problem)
    assert (problem.version, problem.field, problem.record) == ("v2", field, "adapters/0/7")
    assert served(catalog) == "v3"
    assert "v2" in catalog.view().refused
    assert "v2" not in catalog.view().loaded
    assert catalog.adapter(published(bundle, "v2")) is None  # published again, as it should be
    assert served(catalog) == "v2"
    assert catalog.view().refused == {}


def test_v1_is_never_published(catalog, bundle):
    before = catalog.view().active
    assert catalog.adapter(published(bundle, "v1")) is not None
    assert catalog.view().active is before
    assert catalog.view().loaded["v1"] is before


def test_a_version_keeps_its_bytes(catalog, bundle):
    first = published(bundle, "v2", seed=1)
    catalog.adapter(first)
    catalog.look_into("v2")
    before = catalog.view().loaded["v2"]
    assert catalog.adapter(first) is None
    problem = catalog.adapter(published(bundle, "v2", seed=2))
    assert problem is not None
    assert problem.version is None  # v2 itself can be served
    assert "other bytes" in problem.reason
    assert catalog.view().loaded["v2"].v.tobytes() == before.v.tobytes()
    assert "v2" not in catalog.view().refused


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (taken("control", b"active", b"junk"), None),
        (taken("control", b"active", encode({"setting": "active"})), "at"),
        (taken("control", b"active", order("pin", "v2").value), "setting"),
        (taken("control", b"pin", b'{"setting":"pin","at":"","by":"","reason":"","version":7}'), "version"),
    ],
    ids=["junk", "fields missing", "another key", "type"],
)
def test_a_bad_order_changes_nothing(catalog, bundle, record, field):
    catalog.adapter(published(bundle, "v2"))
    catalog.control(order("active", "v2"))
    problem = catalog.control(record)
    assert problem is not None
    assert (problem.version, problem.field) == (None, field)
    assert served(catalog) == "v2"


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the adapters that are unpacked from here on."""
    keys: list[str] = []

    def counting(key: bytes | None, *rest: Any) -> Adapter:
        keys.append((key or b"").decode())
        return unpack(key, *rest)

    monkeypatch.setattr("scorer.catalog.unpack", counting)
    return keys


def test_only_what_is_named_is_unpacked(catalog, bundle, unpacked):
    catalog.control(order("candidate", "v5"))
    for i in range(2, 6):
        catalog.adapter(published(bundle, f"v{i}", seed=i))
    assert unpacked == ["v5"]
    catalog.control(order("active", "v3"))
    assert (served(catalog), unpacked) == ("v3", ["v5", "v3"])
    catalog.look_into("v2")
    catalog.look_into("v2")
    assert unpacked == ["v5", "v3", "v2"]
    assert set(catalog.view().loaded) == {"v1", "v2", "v3", "v5"}
    assert catalog.view().refused == {}


def test_the_others_are_looked_at_one_by_one(catalog, bundle, unpacked):
    for i in range(2, 5):
        catalog.adapter(published(bundle, f"v{i}", **({"logit_shift": float("nan")} if i == 3 else {})))
    assert unpacked == []
    problems = [catalog.look_at_one() for _ in range(5)]
    assert unpacked == ["v2", "v3", "v4"]
    assert [p.version if p else None for p in problems] == [None, "v3", None, None, None]
    assert set(catalog.view().loaded) == {"v1", "v2", "v4"}


@pytest.mark.parametrize("setting", ["active", "candidate", "pin"])
def test_what_cannot_be_used_is_refused_once_when_it_is_named(catalog, bundle, setting):
    bad = published(bundle, "v2", logit_shift=float("nan"))._replace(offset=3)
    assert catalog.adapter(bad) is None
    assert catalog.view().refused == {}
    problem = catalog.control(order(setting, "v2"))
    assert problem is not None
    assert (problem.version, problem.field, problem.record) == ("v2", None, "adapters/0/3")
    assert (served(catalog), catalog.view().candidate) == ("v1", None)
    assert "v2" in catalog.view().refused
    assert catalog.control(order(setting, "v2")) is None
    assert catalog.look_into("v2") is None


def test_bytes_that_turn_out_bad_give_way_to_other_bytes(catalog, bundle):
    assert catalog.adapter(published(bundle, "v2", logit_shift=float("nan"))) is None
    problem = catalog.adapter(published(bundle, "v2", seed=1))
    assert problem is not None
    assert problem.version == "v2"  # the first of the two records
    assert catalog.look_into("v2") is None
    assert "v2" in catalog.view().loaded
    assert catalog.view().refused == {}


def test_a_spoilt_copy_takes_nothing_away_from_what_is_kept(catalog, bundle):
    catalog.adapter(published(bundle, "v2"))
    problem = catalog.adapter(spoilt(published(bundle, "v2"), sha256="0" * 64))
    assert problem is not None
    assert problem.version is None
    catalog.control(order("active", "v2"))
    assert served(catalog) == "v2"


def test_what_is_kept_is_bounded_in_bytes(catalog, bundle, unpacked, monkeypatch):
    size = len(published(bundle, "v2").value or b"")
    monkeypatch.setattr("scorer.catalog.KEPT_BYTES_MAX", size)
    for i in range(2, 5):
        catalog.adapter(published(bundle, f"v{i}", seed=i))
    assert unpacked == ["v3", "v4"]
    catalog.adapter(taken("adapters", b"v2", None))
    catalog.adapter(published(bundle, "v5"))
    assert unpacked == ["v3", "v4"]  # there is room again


def test_settings_of_others_are_passed_over(catalog):
    for key in (b"thresholds", b"something new", None):
        assert catalog.control(taken("control", key, b"junk")) is None


def test_the_oldest_not_in_use_go_first(catalog, bundle):
    catalog.control(order("active", "v2"))
    catalog.control(order("candidate", "v4"))
    for i in range(2, 12):
        catalog.adapter(published(bundle, f"v{i}", seed=i))
    for i in range(2, 12):
        assert catalog.look_into(f"v{i}") is None
    assert list(catalog.view().loaded) == ["v1", "v2", "v4", "v10", "v11"]
    assert served(catalog) == "v2"


def test_refusals_are_bounded_too(catalog, bundle):
    for i in range(2, 12):
        catalog.adapter(taken("adapters", f"v{i}".encode(), b"junk"))
    assert list(catalog.view().refused) == [f"v{i}" for i in range(7, 12)]


def test_a_tombstone_takes_away_what_is_not_in_use(catalog, bundle):
    for version in ("v2", "v3"):
        catalog.adapter(published(bundle, version))
    catalog.control(order("active", "v2"))
    for key in (b"v1", b"v2", b"v3", b"v99", None):
        assert catalog.adapter(taken("adapters", key, None)) is None
    assert catalog.look_into("v3") is None
    assert list(catalog.view().loaded) == ["v1", "v2"]
    assert catalog.adapter(published(bundle, "v3", seed=5)) is None  # other bytes than before: it was taken away


def test_a_view_never_changes(catalog, bundle):
    before = catalog.view()
    catalog.adapter(published(bundle, "v2"))
    catalog.adapter(taken("adapters", b"v3", b"junk"))
    catalog.control(order("active", "v2"))
    assert (before.active.version, list(before.loaded), dict(before.refused)) == ("v1", ["v1"], {})
