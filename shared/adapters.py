"""An adapter as bytes on the adapters topic, and the checks it must pass before it is loaded.

Value: safetensors with align.shift, align.scale (d,), reflex.* (bundle.reflex_shapes), logit_shift (), where the feed's
columns are in another order align.order (d,) and, for the healer alone, the optimiser's state under optim.*. Headers:
version, parent, bundle, request, stage (pre-heal or post-heal), sha256 (of the value), summary (JSON: how the fit
went), at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from shared.bundle import Array, Bundle, check_tensors, reflex_shapes
from shared.errors import Refused
from shared.records import FIRST_VERSION

MAX_ADAPTER_BYTES = 2 * 1024 * 1024
ADAPTERS_KEPT = 1_000  # by a scorer, the newest; a batch that names an older one is not scored


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """What is applied around the frozen network: features are read as (x[:, order] - shift) / scale, the hidden rows
    pass the ReflexiveLayer, logit_shift is added to the logit. order: where each of the bundle's columns stands in the
    feed, empty where every column is in its place. optim: the optimiser's state that belongs to these
    weights, so that a rollback brings both back."""

    version: str
    parent: str
    bundle: str
    shift: Array  # (d,)
    scale: Array  # (d,) not zero
    reflex: dict[str, Array]
    logit_shift: float = 0.0
    order: tuple[int, ...] = ()
    optim: dict[str, Array] = {}

    @property
    def aligned(self) -> bool:
        """False where the alignment is the identity and the backbone's pass can be shared with the shadow."""
        return bool(self.order or np.any(self.shift != 0) or np.any(self.scale != 1))


def first_adapter(bundle: Bundle) -> Adapter:
    """The bundle's own: identity alignment, the ReflexiveLayer as trained, no correction."""
    d = len(bundle.features)
    return Adapter(
        version=FIRST_VERSION,
        parent=FIRST_VERSION,
        bundle=bundle.hash,
        shift=np.zeros(d, np.float32),
        scale=np.ones(d, np.float32),
        reflex={k: bundle.weights[k] for k in reflex_shapes(bundle.manifest.hidden)},
    )


def optim_shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    """The optimiser's tensors on the wire: all of them (a healed adapter) or none (the bundle's own)."""
    moments = ("exp_avg", "exp_avg_sq")
    return {
        "optim.step": (),
        **{f"optim.{m}.{name}": shape for m in moments for name, shape in reflex_shapes(hidden).items()},
    }


def pack(
    adapter: Adapter, *, request: str, stage: str, summary: Mapping[str, object], at: str
) -> tuple[bytes, dict[str, str]]:
    """Value and headers of the adapters record."""
    tensors: dict[str, Array] = {
        "align.shift": adapter.shift,
        "align.scale": adapter.scale,
        "logit_shift": np.array(adapter.logit_shift, np.float32),
        **adapter.reflex,
        **({"align.order": np.array(adapter.order, np.float32)} if adapter.order else {}),
        **{f"optim.{k}": v for k, v in adapter.optim.items()},
    }
    value = save_tensors({k: np.asarray(v, np.float32, order="C") for k, v in tensors.items()})
    headers = {
        "version": adapter.version,
        "parent": adapter.parent,
        "bundle": adapter.bundle,
        "request": request,
        "stage": stage,
        "sha256": hashlib.sha256(value).hexdigest(),
        "summary": msgspec.json.encode(summary).decode(),
        "at": at,
    }
    return value, headers


def check_record(key: bytes | None, value: bytes | None, headers: Mapping[str, bytes], bundle: Bundle) -> bytes:
    """What can be told of an adapters record without looking into it: size, key, bundle, hash. Returns the SHA-256 of
    the value. Raises Refused, which names what is wrong."""
    if value is None or key is None:
        raise Refused("no value or no key")
    if len(value) > MAX_ADAPTER_BYTES:
        raise Refused(f"{len(value)} bytes, at most {MAX_ADAPTER_BYTES} are taken")
    text = {k: headers.get(k, b"").decode("utf-8", "replace") for k in ("version", "bundle", "sha256")}
    if text["version"] != key.decode("utf-8", "replace"):
        raise Refused(f"key {key!r} is not the version", "version")
    if text["version"] == FIRST_VERSION:
        raise Refused(f"{FIRST_VERSION} is the bundle's own and is never published", "version")
    if text["bundle"] != bundle.hash:
        raise Refused(f"made for bundle {text['bundle'][:12]}, this is {bundle.hash[:12]}", "bundle")
    digest = hashlib.sha256(value)
    if digest.hexdigest() != text["sha256"]:
        raise Refused("the bytes do not have the SHA-256 that the header names", "sha256")
    return digest.digest()


def unpack(key: bytes | None, value: bytes | None, headers: Mapping[str, bytes], bundle: Bundle) -> Adapter:
    """Check the record, and names, shapes and numbers of what is in it, and load. Raises Refused, which names what is
    wrong."""
    check_record(key, value, headers, bundle)
    try:
        tensors = load_tensors(value or b"")
    except (SafetensorError, ValueError, KeyError) as exc:
        raise Refused(f"not safetensors: {exc}") from exc
    d, shapes = len(bundle.features), reflex_shapes(bundle.manifest.hidden)
    optim = optim_shapes(bundle.manifest.hidden) if any(k.startswith("optim.") for k in tensors) else {}
    ordered: dict[str, tuple[int, ...]] = {"align.order": (d,)} if "align.order" in tensors else {}
    try:
        align = {"align.shift": (d,), "align.scale": (d,), "logit_shift": (), **ordered}
        check_tensors(tensors, {**align, **shapes, **optim})
        if np.any(tensors["align.scale"] == 0):
            raise ValueError("tensor align.scale holds a zero")
        if ordered and sorted(tensors["align.order"].tolist()) != list(range(d)):
            raise ValueError(f"tensor align.order does not hold each of 0 to {d - 1} once")
    except ValueError as exc:
        raise Refused(str(exc)) from exc
    return Adapter(
        version=(key or b"").decode("utf-8", "replace"),
        parent=headers.get("parent", b"").decode("utf-8", "replace"),
        bundle=bundle.hash,
        shift=tensors["align.shift"],
        scale=tensors["align.scale"],
        reflex={k: tensors[k] for k in shapes},
        logit_shift=float(tensors["logit_shift"]),
        order=tuple(int(i) for i in tensors["align.order"]) if ordered else (),
        optim={k.removeprefix("optim."): tensors[k] for k in optim},
    )
