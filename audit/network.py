"""The bundle, an adapter and the network, from their files and the formulas in the protocol; in float64.

    h = relu(W2 relu(W0 x + b0) + b2)                     the backbone
    h' = h + scale * (R2 tanh(R0 h + c0) + c2)            the ReflexiveLayer of an adapter
    p = sigmoid(head . h' + bias + logit_shift)           x read as (x[order] - shift) / scale first
The shadow is the same without the layer, the alignment and the shift.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from audit.log import CannotAudit

Floats = npt.NDArray[Any]
Tensors = dict[str, Floats]
FIRST_VERSION = "v1"


class Bundle(NamedTuple):
    """manifest: bundle.json. weights: by name, as stored (float32)."""

    hash: str
    manifest: dict[str, Any]
    weights: Tensors

    @property
    def d(self) -> int:
        return len(self.manifest["features"])

    def rule(self, x: Floats) -> npt.NDArray[np.bool_]:
        """(n, d) to (n,): what the symbolic rule says; all False where the bundle has none."""
        rule = self.manifest["rule"]
        if rule is None:
            return np.zeros(len(x), bool)
        column, limit = x[:, self.manifest["features"].index(rule["feature"])], np.float32(rule["threshold"])
        return column < limit if rule["op"] == "<" else column > limit


class Adapter(NamedTuple):
    """Tensors of one adapters record, or of the bundle's own adapter."""

    version: str
    tensors: Tensors


def read_bundle(folder: Path) -> Bundle:
    """Raises CannotAudit: not there, or not what its own hashes say."""
    try:
        raw = (folder / "bundle.json").read_bytes()
        weights = (folder / "weights.safetensors").read_bytes()
    except OSError as exc:
        raise CannotAudit(f"no bundle at {folder} (--bundle): {exc.filename}: {exc.strerror}") from exc
    try:
        manifest = orjson.loads(raw)
        named = manifest["weights_sha256"]
        _ = manifest["features"], manifest["rule"], manifest["thresholds"]["flag"], manifest["thresholds"]["conflict"]
        tensors = load_tensors(weights)
    except (orjson.JSONDecodeError, SafetensorError, KeyError, TypeError) as exc:
        raise CannotAudit(f"the bundle at {folder} cannot be read: {exc!r}") from exc
    if hashlib.sha256(weights).hexdigest() != named:
        raise CannotAudit(f"{folder / 'weights.safetensors'} is not the file that bundle.json names")
    return Bundle(hashlib.sha256(raw).hexdigest(), manifest, tensors)


def first_adapter(bundle: Bundle) -> Adapter:
    """v1: the bundle's own layer, no alignment, no shift."""
    return Adapter(FIRST_VERSION, {k: v for k, v in bundle.weights.items() if k.startswith("reflex.")})


def shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """What every adapter must hold."""
    own = {k: v.shape for k, v in bundle.weights.items() if k.startswith("reflex.")}
    return {"align.shift": (bundle.d,), "align.scale": (bundle.d,), "logit_shift": (), **own}


def probabilities(
    x: Floats, bundle: Bundle, adapters: list[Adapter], kind: type[np.floating[Any]] = np.float64
) -> list[Floats]:
    """(n, d) to [shadow, *adapters], each (n,) in 0..1. kind: the arithmetic that is used."""
    w = {k: v.astype(kind) for k, v in bundle.weights.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        hidden = _hidden(x.astype(kind), w)
        found = [_sigmoid(hidden @ w["head.weight"][0] + w["head.bias"][0])]
        for adapter in adapters:
            own = _aligned(x, adapter.tensors, kind)
            h = hidden if own is None else _hidden(own, w)
            a = {k: v.astype(kind) for k, v in adapter.tensors.items() if k.startswith("reflex.")}
            t = np.tanh(h @ a["reflex.0.weight"].T + a["reflex.0.bias"])
            h = h + a["reflex.scale"] * (t @ a["reflex.2.weight"].T + a["reflex.2.bias"])
            shift = adapter.tensors.get("logit_shift", np.zeros(())).astype(kind)
            found.append(_sigmoid(h @ w["head.weight"][0] + w["head.bias"][0] + shift))
    return found


def _hidden(x: Floats, w: Mapping[str, Floats]) -> Floats:
    h = np.maximum(x @ w["backbone.0.weight"].T + w["backbone.0.bias"], 0)
    out: Floats = np.maximum(h @ w["backbone.2.weight"].T + w["backbone.2.bias"], 0)
    return out


def undone(x: Floats, adapter: Adapter | None) -> Floats:
    """(n, d) rows as they came to (n, d) as an adapter reads them, in float32 as scorers do; the rule reads these."""
    with np.errstate(over="ignore", invalid="ignore"):
        own = None if adapter is None else _aligned(x, adapter.tensors, np.float32)
    return x if own is None else own


def _aligned(x: Floats, tensors: Tensors, kind: type[np.floating[Any]]) -> Floats | None:
    """None where the alignment changes nothing."""
    shift, scale, order = (tensors.get(f"align.{name}") for name in ("shift", "scale", "order"))
    if order is not None:
        x = x[:, order.astype(np.intp)]
    if shift is None or scale is None or (order is None and not shift.any() and (scale == 1).all()):
        return None
    out: Floats = (x.astype(kind) - shift.astype(kind)) / scale.astype(kind)
    return out


def _sigmoid(logit: Floats) -> Floats:
    e = np.exp(-np.abs(logit))
    out: Floats = np.where(logit >= 0, 1 / (1 + e), e / (1 + e))
    return out
