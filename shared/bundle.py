"""A bundle: what is deployed. A folder with one content hash, which every adapter and prediction names.

    bundle.json           features, rule, thresholds, costs, table, statistics, clean scores; weights' SHA-256
    weights.safetensors   backbone.0, backbone.2, head, and the adapter's start (reflex.0, reflex.2, reflex.scale)
    reference.safetensors labelled rows: features (n, d) float32, labels (n,) int8; clean, and not trained on where
                          there are enough of those

The hash is the SHA-256 of bundle.json, which itself holds the hashes of the other two files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from shared.errors import OperatorError
from shared.fills import Fill, fills_of
from shared.manifest import HIDDEN_MAX as HIDDEN_MAX
from shared.manifest import SCHEMA as SCHEMA
from shared.manifest import Costs as Costs
from shared.manifest import FeatureStatistics as FeatureStatistics
from shared.manifest import Manifest as Manifest
from shared.manifest import Rule as Rule
from shared.manifest import Scores as Scores
from shared.manifest import Thresholds as Thresholds

Array = npt.NDArray[np.float32]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle in memory. weights: by name, float32. reference_x (n, d) float32, reference_y (n,) int8."""

    hash: str
    manifest: Manifest
    weights: dict[str, Array]
    reference_x: Array
    reference_y: npt.NDArray[np.int8]

    @property
    def features(self) -> list[str]:
        return self.manifest.features

    @property
    def affine(self) -> list[bool]:
        """Per feature: could a feed shift or scale it? Not so a 0/1 feature, or one of few values."""
        return [self.manifest.statistics[name].affine for name in self.features]

    @property
    def fills(self) -> tuple[Fill, ...]:
        return fills_of(self.manifest.table, self.features)

    @property
    def rule_column(self) -> int | None:
        """Position of the rule's feature, None without a rule."""
        return None if self.manifest.rule is None else self.features.index(self.manifest.rule.feature)

    @property
    def watched_column(self) -> int:
        return self.features.index(self.manifest.watched)

    def rule_says_fraud(self, x: Array) -> npt.NDArray[np.bool_]:
        """(n, d) features to (n,) bool; all False without a rule."""
        rule, column = self.manifest.rule, self.rule_column
        if rule is None or column is None:
            return np.zeros(len(x), dtype=bool)
        return x[:, column] < rule.threshold if rule.op == "<" else x[:, column] > rule.threshold


def weight_shapes(d: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor in weights.safetensors; Linear weights are (out, in) as in PyTorch."""
    h = hidden
    return {
        "backbone.0.weight": (h, d), "backbone.0.bias": (h,), "backbone.2.weight": (h, h), "backbone.2.bias": (h,),
        "head.weight": (1, h), "head.bias": (1,),
        **reflex_shapes(h),
    }  # fmt: skip


def reflex_shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    """The ReflexiveLayer's tensors: x + scale * W2 tanh(W0 x + b0) + b2."""
    h = hidden
    return {
        "reflex.0.weight": (h, h), "reflex.0.bias": (h,), "reflex.2.weight": (h, h), "reflex.2.bias": (h,),
        "reflex.scale": (),
    }  # fmt: skip


def check_tensors(tensors: Mapping[str, npt.NDArray[np.generic]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Names, shapes, float32, finite. Raises ValueError, which names the tensor."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ValueError(f"tensor {name} has shape {tensor.shape}, not {shape}")
        if tensor.dtype != np.float32:
            raise ValueError(f"tensor {name} is {tensor.dtype}, not float32")
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds a number that is not finite")


def write_whole(path: Path, data: bytes) -> None:
    """The file appears complete or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def save(folder: Path, manifest: Manifest, weights: Mapping[str, Array], x: Array, y: npt.NDArray[np.int8]) -> Bundle:
    """Write a bundle (the manifest's two hashes are filled in here) and return it as loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_bytes = save_tensors({k: np.asarray(v, np.float32, order="C") for k, v in weights.items()})
    reference_bytes = save_tensors({"features": np.ascontiguousarray(x), "labels": np.ascontiguousarray(y)})
    manifest = msgspec.structs.replace(
        manifest,
        weights_sha256=hashlib.sha256(weight_bytes).hexdigest(),
        reference_sha256=hashlib.sha256(reference_bytes).hexdigest(),
    )
    write_whole(folder / "weights.safetensors", weight_bytes)
    write_whole(folder / "reference.safetensors", reference_bytes)
    write_whole(folder / "bundle.json", msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return load(folder)


def load(folder: Path) -> Bundle:
    """Read and check a bundle. Raises OperatorError, which names the file and what is wrong with it."""
    try:
        raw = (folder / "bundle.json").read_bytes()
        weight_bytes = (folder / "weights.safetensors").read_bytes()
        reference_bytes = (folder / "reference.safetensors").read_bytes()
    except OSError as exc:
        raise OperatorError(
            f"no bundle at {folder}: {exc.filename}: {exc.strerror}; `selfheal train --out DIR` makes one"
        ) from exc
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise OperatorError(f"{folder / 'bundle.json'}: {exc}") from exc
    if manifest.schema != SCHEMA:
        raise OperatorError(f"{folder / 'bundle.json'}: schema {manifest.schema}, this program reads {SCHEMA}")
    for name in [manifest.watched, *([manifest.rule.feature] if manifest.rule else [])]:
        if name not in manifest.features:
            raise OperatorError(f"{folder / 'bundle.json'}: {name} is not one of its features")
    if len(set(manifest.features)) != len(manifest.features):
        raise OperatorError(f"{folder / 'bundle.json'}: a feature is named twice")
    if manifest.table is not None and manifest.table.features() != manifest.features:
        raise OperatorError(f"{folder / 'bundle.json'}: the table's columns do not make its features")
    if absent := sorted(set(manifest.features) - manifest.statistics.keys()):
        raise OperatorError(f"{folder / 'bundle.json'}: statistics of {', '.join(absent)} are missing")
    weights = _checked(folder / "weights.safetensors", weight_bytes, manifest.weights_sha256)
    reference = _checked(folder / "reference.safetensors", reference_bytes, manifest.reference_sha256)
    d = len(manifest.features)
    try:
        check_tensors(weights, weight_shapes(d, manifest.hidden))
        if "labels" not in reference:
            raise ValueError("tensor labels is missing")
        if not np.isin(reference["labels"], (0, 1)).all():
            raise ValueError("tensor labels must be 0 or 1 everywhere")
        check_tensors(reference, {"features": (len(reference["labels"]), d)})
    except ValueError as exc:
        raise OperatorError(f"bundle at {folder}: {exc}") from exc
    return Bundle(
        hash=hashlib.sha256(raw).hexdigest(),
        manifest=manifest,
        weights=weights,
        reference_x=reference["features"],
        reference_y=reference["labels"].astype(np.int8),
    )


def _checked(path: Path, data: bytes, sha256: str) -> dict[str, npt.NDArray[np.float32]]:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OperatorError(f"{path} is not the file that bundle.json names (its SHA-256 differs)")
    try:
        return load_tensors(data)
    except SafetensorError as exc:
        raise OperatorError(f"{path}: {exc}") from exc
