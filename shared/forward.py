"""The network in NumPy, for the hot path: same numbers as shared/model.py to 1e-6, and the same bits for a row
whatever rows share its pass.

Three facts make the bits stable: matrix products run on at least 2 rows (a single row takes another BLAS path),
the last layer is a sum over the row and no product with a vector, and nothing reduces across rows. A test holds it.
"""

from __future__ import annotations

import msgspec
import numpy as np

from shared.adapters import Adapter
from shared.bundle import Array, Bundle

CHUNK = 800  # rows a pass: larger ones fall out of the second-level cache


class Network(msgspec.Struct, frozen=True):
    """The frozen part. w0 (d, h), b0 (h,), w1 (h, h), b1 (h,), out (h,), bias scalar; transposed for x @ w."""

    w0: Array
    b0: Array
    w1: Array
    b1: Array
    out: Array
    bias: np.float32

    @classmethod
    def of(cls, bundle: Bundle) -> Network:
        w = bundle.weights
        return cls(
            np.ascontiguousarray(w["backbone.0.weight"].T), w["backbone.0.bias"],
            np.ascontiguousarray(w["backbone.2.weight"].T), w["backbone.2.bias"],
            w["head.weight"][0], w["head.bias"][0],
        )  # fmt: skip

    def hidden(self, x: Array) -> Array:
        """(n, d) to (n, h): the backbone."""
        h = x @ self.w0
        h += self.b0
        np.maximum(h, 0, out=h)
        h = h @ self.w1
        h += self.b1
        return np.maximum(h, 0, out=h)

    def logit(self, hidden: Array) -> Array:
        """(n, h) to (n,): the head."""
        return (hidden * self.out).sum(axis=1) + self.bias


class Folded(msgspec.Struct, frozen=True):
    """An adapter folded into the head where it is linear: logit = logit(h) + tanh(h @ w + b) . v + c.

    head(h + s * (W2 t + b2)) = head(h) + t . (s * W2^T out) + s * (b2 . out), with t = tanh(W0 h + b0).
    """

    version: str
    w: Array  # (h, h)
    b: Array  # (h,)
    v: Array  # (h,)
    c: np.float32
    inert: bool  # the reflex adds exactly zero: skip its pass
    shift: Array | None  # (d,), None where the alignment is the identity
    scale: Array | None

    @classmethod
    def of(cls, adapter: Adapter, network: Network) -> Folded:
        r = adapter.reflex
        v = (r["reflex.2.weight"] * network.out[:, None]).sum(axis=0) * r["reflex.scale"]
        c = np.float32((r["reflex.2.bias"] * network.out).sum() * r["reflex.scale"] + np.float32(adapter.logit_shift))
        return cls(
            adapter.version, np.ascontiguousarray(r["reflex.0.weight"].T), r["reflex.0.bias"], v.astype(np.float32), c,
            not np.any(v), adapter.shift if adapter.aligned else None, adapter.scale if adapter.aligned else None,
        )  # fmt: skip

    def delta(self, hidden: Array) -> Array:
        """(n, h) to (n,): what the adapter adds to the frozen logit."""
        if self.inert:
            return np.full(len(hidden), self.c, np.float32)
        t = hidden @ self.w
        t += self.b
        np.tanh(t, out=t)
        t *= self.v
        return t.sum(axis=1) + self.c


def sigmoid(logit: Array) -> Array:
    """Stable for any finite logit."""
    e = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1 / (1 + e), e / (1 + e)).astype(np.float32)


def probabilities(x: Array, network: Network, adapters: list[Folded]) -> list[Array]:
    """(n, d) float32 to [frozen, *adapters] probabilities, each (n,) float32. One backbone pass serves the frozen
    network and every adapter without an alignment."""
    if len(x) > CHUNK:
        parts = [probabilities(x[i : i + CHUNK], network, adapters) for i in range(0, len(x), CHUNK)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
    n = len(x)
    if n == 1:
        x = np.repeat(x, 2, axis=0)
    hidden = network.hidden(x)
    frozen = network.logit(hidden)
    results = [sigmoid(frozen)[:n]]
    for adapter in adapters:
        if adapter.shift is None:
            own_hidden, own_logit = hidden, frozen
        else:
            own_hidden = network.hidden((x - adapter.shift) / adapter.scale)
            own_logit = network.logit(own_hidden)
        results.append(sigmoid(own_logit + adapter.delta(own_hidden))[:n])
    return results
