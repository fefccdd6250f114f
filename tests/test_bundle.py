"""A bundle on disk: whole and unchanged, or an error that names the file and the way out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from producer.generator import REFERENCE
from selfheal.training import train
from shared import bundle as bundles
from shared.bundle import Bundle
from shared.errors import OperatorError

FILES = ("bundle.json", "weights.safetensors", "reference.safetensors")


@pytest.fixture
def folder(bundle_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(bundle_dir, tmp_path / "bundle"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def edit_tensors(folder: Path, name: str, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change a safetensors file and the hash that bundle.json names with it."""
    path = folder / f"{name}.safetensors"
    tensors = load_tensors(path.read_bytes())
    change(tensors)
    path.write_bytes(save_tensors(tensors))
    edit(folder, lambda m: m.update({f"{name}_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))


def test_the_hash_is_that_of_the_manifest_which_names_the_others(bundle_dir: Path, bundle: Bundle) -> None:
    digest = {name: hashlib.sha256((bundle_dir / name).read_bytes()).hexdigest() for name in FILES}
    assert bundle.hash == digest["bundle.json"]
    assert bundle.manifest.weights_sha256 == digest["weights.safetensors"]
    assert bundle.manifest.reference_sha256 == digest["reference.safetensors"]
    assert sorted(p.name for p in bundle_dir.iterdir()) == sorted(FILES)


def test_the_published_size_and_the_statistics_of_the_training_rows(bundle: Bundle) -> None:
    assert sum(w.size for w in bundle.weights.values()) == 13_250
    v14 = bundle.manifest.statistics["V14"]
    column = REFERENCE.rows(np.random.default_rng(42), 5_000, exact=True)[0][:, bundle.watched_column]
    assert v14.mean == pytest.approx(column.mean(), abs=1e-5)
    assert v14.deviation == pytest.approx(column.std(), abs=1e-5)
    assert (len(v14.quantiles), v14.quantiles[50]) == (101, pytest.approx(np.median(column), abs=1e-5))
    assert bundle.manifest.fraud_rate == 0.15 == bundle.reference_y.mean()
    assert bundle.affine == [True] * 10


def test_no_reference_row_was_trained_or_measured_on(bundle: Bundle) -> None:
    rng = np.random.default_rng(42)
    used = np.concatenate([REFERENCE.rows(rng, n, exact=True)[0] for n in (5_000, 1_000)]).astype(np.float32)
    assert not {row.tobytes() for row in used} & {row.tobytes() for row in bundle.reference_x}
    assert len(bundle.reference_x) == 10_000


def test_clean_scores_are_in_the_range_that_20_seeds_gave(bundle: Bundle) -> None:
    assert 0.915 <= bundle.manifest.clean.accuracy <= 0.955
    assert 0.72 <= bundle.manifest.clean.f1 <= 0.84


def test_the_rule_reads_its_feature_alone(bundle: Bundle) -> None:
    x = np.zeros((3, len(bundle.features)), np.float32)
    x[:, bundle.rule_column] = (-1.6, -1.5, 2.0)
    assert bundle.rule_says_fraud(x).tolist() == [True, False, False]


def test_the_same_seed_trains_the_same_bundle_and_says_each_epoch(tmp_path: Path) -> None:
    heard: list[int] = []
    one = train(tmp_path / "one", seed=7, epochs=2, on_epoch=heard.append)
    assert heard == [1, 2]
    assert train(tmp_path / "two", seed=7, epochs=2).hash == one.hash
    assert train(tmp_path / "three", seed=8, epochs=2).hash != one.hash


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_command_that_makes_one(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(OperatorError, match=rf"{name}.*selfheal train"):
        bundles.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "reference.safetensors"])
def test_tampered_bytes_are_refused_by_file(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(OperatorError, match=rf"{name} is not the file that bundle.json names"):
        bundles.load(folder)


BAD_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another schema": (lambda m: m.update(schema=2), "schema 2, this program reads 1"),
    "unknown feature in the rule": (lambda m: m["rule"].update(feature="V99"), "V99 is not one of its features"),
    "unknown feature watched": (lambda m: m.update(watched="V98"), "V98 is not one of its features"),
    "an op that is none": (lambda m: m["rule"].update(op="=<"), r"rule.op"),
    "missing field": (lambda m: m.pop("hidden"), "missing required field `hidden`"),
    "threshold out of range": (lambda m: m["thresholds"].update(flag=1.5), "thresholds.flag"),
    "too wide": (lambda m: m.update(hidden=257), r"<= 256 - at `\$.hidden`"),
    "a feature twice": (lambda m: m["features"].__setitem__(0, "V14"), "a feature is named twice"),
    "no statistics of a feature": (lambda m: m["statistics"].pop("V14"), "statistics of V14 are missing"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_by_field(folder: Path, case: str) -> None:
    change, message = BAD_MANIFESTS[case]
    edit(folder, change)
    with pytest.raises(OperatorError, match=message) as refused:
        bundles.load(folder)
    assert str(folder) in str(refused.value)


def test_a_manifest_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "bundle.json").write_bytes(b"\x80 not JSON")
    with pytest.raises(OperatorError, match=r"bundle\.json"):
        bundles.load(folder)


BAD_TENSORS: dict[str, tuple[str, Callable[[dict[str, np.ndarray]], object], str]] = {
    "missing": ("weights", lambda t: t.pop("head.bias"), "head.bias is missing"),
    "shape": ("weights", lambda t: t.update({"head.weight": np.zeros((1, 3), np.float32)}), "head.weight has shape"),
    "dtype": ("weights", lambda t: t.update({"head.bias": np.zeros(1)}), "head.bias is float64"),
    "not finite": ("weights", lambda t: t["backbone.0.bias"].put(0, np.nan), "backbone.0.bias holds"),
    "rows without labels": ("reference", lambda t: t.pop("labels"), "labels is missing"),
    "fewer labels": ("reference", lambda t: t.update(labels=t["labels"][:-1]), "features has shape"),
    "a label that is none": ("reference", lambda t: t["labels"].put(0, 2), "labels must be 0 or 1"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_are_refused_by_name(folder: Path, case: str) -> None:
    name, change, message = BAD_TENSORS[case]
    edit_tensors(folder, name, change)
    with pytest.raises(OperatorError, match=message):
        bundles.load(folder)
