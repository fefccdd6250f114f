"""The network in NumPy, for the hot path: same numbers as shared/model.py to 1e-6, and the same bits for a row
whatever rows share its pass, and wherever it stands among them.

A BLAS gives no such promise: on AVX2 machines OpenBLAS sums a row in another order by its place in the matrix. So
every product runs in blocks of exactly BLOCK rows, a shape in which all places were found equal on every kernel that
we could try (tests/test_forward.py); the last layer is a plain loop over the row; nothing else reduces.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import numpy as np

from shared.adapters import Adapter
from shared.bundle import Array, Bundle
from shared.fills import Fill, refill

BLOCK = 8
CHUNK = 800  # rows a pass: larger ones fall out of the second-level cache


class Network(msgspec.Struct, frozen=True):
    """The frozen part. w0 (d, h), b0 (h,), w1 (h, h), b1 (h,), out (h,), bias scalar; transposed for x @ w. fills: of
    the rows that it reads."""

    w0: Array
    b0: Array
    w1: Array
    b1: Array
    out: Array
    bias: np.float32
    fills: tuple[Fill, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle) -> Network:
        w = bundle.weights
        return cls(
            np.ascontiguousarray(w["backbone.0.weight"].T), w["backbone.0.bias"],
            np.ascontiguousarray(w["backbone.2.weight"].T), w["backbone.2.bias"],
            w["head.weight"][0], w["head.bias"][0], bundle.fills,
        )  # fmt: skip

    def hidden(self, x: Array) -> Array:
        """(n, d) to (n, h), n a multiple of BLOCK: the backbone."""
        h = _product(x, self.w0)
        h += self.b0
        h = _product(_relu(h), self.w1)
        h += self.b1
        return _relu(h)

    def logit(self, hidden: Array) -> Array:
        """(n, h) to (n,): the head."""
        return _along_row(hidden, self.out) + self.bias


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
    order: tuple[int, ...] = ()
    fills: tuple[Fill, ...] = ()  # of the columns that it moves

    @classmethod
    def of(cls, adapter: Adapter, network: Network) -> Folded:
        r = adapter.reflex
        v = (r["reflex.2.weight"] * network.out[:, None]).sum(axis=0) * r["reflex.scale"]
        c = np.float32((r["reflex.2.bias"] * network.out).sum() * r["reflex.scale"] + np.float32(adapter.logit_shift))
        return cls(
            adapter.version, np.ascontiguousarray(r["reflex.0.weight"].T), r["reflex.0.bias"], v.astype(np.float32), c,
            not np.any(v), adapter.shift if adapter.aligned else None, adapter.scale if adapter.aligned else None,
            adapter.order,
            tuple(f for f in network.fills if adapter.shift[f.feature] != 0 or adapter.scale[f.feature] != 1),
        )  # fmt: skip

    def undo(self, x: Array) -> Array:
        """(n, d) as fed to (n, d) as the network was trained to read them."""
        if self.shift is None or self.scale is None:
            return x
        with np.errstate(over="ignore", invalid="ignore"):
            rows: Array = ((x[:, list(self.order)] if self.order else x) - self.shift) / self.scale
        refill(rows, self.fills)
        return rows

    def delta(self, hidden: Array) -> Array:
        """(n, h) to (n,), n a multiple of BLOCK: what the adapter adds to the frozen logit."""
        if self.inert:
            return np.full(len(hidden), self.c, np.float32)
        t = _product(hidden, self.w)
        t += self.b
        np.tanh(t, out=t)
        return _along_row(t, self.v) + self.c


def _relu(h: Array) -> Array:
    """In place. NumPy is three times as fast with a matrix of zeros as with the number."""
    return np.maximum(h, _zeros(h.shape[1])[: len(h)] if len(h) <= CHUNK else 0, out=h)


@functools.cache
def _zeros(width: int) -> Array:
    zeros: Array = np.zeros((CHUNK, width), np.float32)
    zeros.flags.writeable = False
    return zeros


def _product(rows: Array, w: Array) -> Array:
    """(n, k) @ (k, h), one BLAS call for each BLOCK rows: always the same shape, so always the same sums."""
    n, k = rows.shape
    product: Array = (rows.reshape(n // BLOCK, BLOCK, k) @ w).reshape(n, w.shape[1])
    return product


def _along_row(rows: Array, v: Array) -> Array:
    """(n, h) . (h,) to (n,) without BLAS, which would take the rows together."""
    dot: Array = np.einsum("ij,j->i", rows, v)
    return dot


def sigmoid(logit: Array) -> Array:
    """(n,) float32 each; 0 for a logit below -88, where the exponential is infinite in float32."""
    e = np.negative(logit)
    with np.errstate(over="ignore"):
        np.exp(e, out=e)
    e += np.float32(1)
    return np.reciprocal(e, out=e)


def probabilities(x: Array, network: Network, adapters: Sequence[Folded]) -> list[Array]:
    """(n, d) float32 to [frozen, *adapters] probabilities, each (n,) float32. One backbone pass serves the frozen
    network and every adapter without an alignment. Features so large that float32 overflows give NaN, unwarned."""
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [_logits(x[i : i + CHUNK], network, adapters) for i in range(0, max(len(x), 1), CHUNK)]
        columns = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        return [sigmoid(column) for column in columns]


def _logits(x: Array, network: Network, adapters: Sequence[Folded]) -> list[Array]:
    n = len(x)
    if n % BLOCK:
        x = np.concatenate([x, np.zeros((-n % BLOCK, x.shape[1]), np.float32)])
    hidden = network.hidden(x)
    frozen = network.logit(hidden)
    logits = [frozen[:n]]
    for adapter in adapters:
        if adapter.shift is None:
            own_hidden, own_logit = hidden, frozen
        else:
            own_hidden = network.hidden(adapter.undo(x))
            own_logit = network.logit(own_hidden)
        logits.append((own_logit + adapter.delta(own_hidden))[:n])
    return logits
