"""The NumPy forward pass: equal to the PyTorch one, and the same bits for a row in whatever company."""

from __future__ import annotations

import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.adapters import Adapter, first_adapter
from shared.bundle import Array, Bundle, reflex_shapes
from shared.forward import BLOCK, CHUNK, Folded, Network, probabilities, sigmoid

ROOT = Path(__file__).parents[1]


def avx2() -> bool:
    return platform.machine() == "x86_64" and "avx2" in Path("/proc/cpuinfo").read_text()


# OpenBLAS picks its kernels by the machine; those of another one can be asked for.
KERNELS = ["", "Nehalem", *(["Haswell"] if sys.platform == "linux" and avx2() else [])]


def network(rng: np.random.Generator, d: int, h: int) -> Network:
    def draw(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32) / 3

    return Network(draw(d, h), draw(h), draw(h, h), draw(h), draw(h), np.float32(0.1))


def folded(rng: np.random.Generator, d: int, h: int, *, aligned: bool) -> Folded:
    def draw(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32) / 3

    shift, scale = (draw(d), draw(d) + 2) if aligned else (None, None)
    return Folded("v2", draw(h, h), draw(h), draw(h), np.float32(0.2), False, shift, scale)


def changed(adapter: Adapter, seed: int, **more: object) -> Adapter:
    """The same adapter with weights that do something."""
    rng = np.random.default_rng(seed)
    reflex = {k: (v + rng.normal(0, 0.2, v.shape)).astype(np.float32) for k, v in adapter.reflex.items()}
    return msgspec.structs.replace(adapter, version="v2", reflex=reflex, **more)


def check_bits() -> None:
    """Raises AssertionError where a row's bits depend on what is beside it, on its place, or on its alignment."""
    rng = np.random.default_rng(3)
    for d, h in ((10, 64), (7, 33), (30, 16)):
        net = network(rng, d, h)
        adapters = [folded(rng, d, h, aligned=False), folded(rng, d, h, aligned=True)]
        x = rng.normal(size=(2 * CHUNK + 13, d)).astype(np.float32)
        whole = probabilities(x, net, adapters)
        same = probabilities(np.repeat(x[:1], CHUNK, axis=0), net, adapters)
        assert all(len(np.unique(column)) == 1 for column in same), "the place in a block matters"
        for _ in range(60):
            rows = int(rng.choice([1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 17, 64, 100, 127, CHUNK + 1]))
            start = int(rng.integers(0, len(x) - rows))
            odd = np.empty(rows * d + 3, np.float32)[3:].reshape(rows, d)  # 12 bytes off
            odd[:] = x[start : start + rows]
            for found, all_rows in zip(probabilities(odd, net, adapters), whole, strict=True):
                assert found.tobytes() == all_rows[start : start + rows].tobytes(), (d, h, rows, start)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_row_has_the_same_bits_however_it_is_batched(kernels):
    code = f"import runpy; runpy.run_path({__file__!r})['check_bits']()"
    environment = os.environ | {"OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_check_above_can_fail():
    """A pass whose answer depends on the company is found out."""
    found = runpy.run_path(__file__)
    found["check_bits"].__globals__["probabilities"] = lambda x, *_: [x[:, 0] - x[:, 0].mean()]
    with pytest.raises(AssertionError):
        found["check_bits"]()


@pytest.mark.parametrize("aligned", [False, True])
def test_the_same_numbers_as_the_network_in_torch(bundle: Bundle, aligned):
    import torch

    from shared.model import model_of

    x = bundle.reference_x[:500]
    rng = np.random.default_rng(1)
    d = x.shape[1]
    alignment = {
        "shift": rng.normal(0, 0.5, d).astype(np.float32),
        "scale": rng.uniform(0.5, 2, d).astype(np.float32),
    }
    adapter = changed(first_adapter(bundle), 7, logit_shift=0.3, **(alignment if aligned else {}))
    read = (x - adapter.shift) / adapter.scale
    net = Network.of(bundle)
    frozen, own = probabilities(x, net, [Folded.of(adapter, net)])
    model = model_of(bundle, adapter)
    with torch.inference_mode():
        expected_frozen = torch.sigmoid(model.frozen(torch.from_numpy(x))).numpy()
        expected = torch.sigmoid(model(torch.from_numpy(read)) + 0.3).numpy()
    assert np.abs(frozen - expected_frozen).max() < 1e-6
    assert np.abs(own - expected).max() < 1e-6
    assert np.abs(own - frozen).max() > 0.01  # the adapter does something


def test_the_bundles_own_adapter_changes_nothing(bundle: Bundle):
    net = Network.of(bundle)
    own = Folded.of(first_adapter(bundle), net)
    frozen, healed = probabilities(bundle.reference_x, net, [own])
    assert own.inert
    assert healed.tobytes() == frozen.tobytes()


def test_an_adapter_answers_the_same_beside_others(bundle: Bundle):
    net = Network.of(bundle)
    one = Folded.of(changed(first_adapter(bundle), 1), net)
    two = Folded.of(changed(first_adapter(bundle), 2, logit_shift=-1.0), net)
    x = bundle.reference_x[:300]
    _, beside_one, beside_two = probabilities(x, net, [one, two])
    assert beside_one.tobytes() == probabilities(x, net, [one])[1].tobytes()
    assert beside_two.tobytes() == probabilities(x, net, [two])[1].tobytes()


def test_the_sigmoid_at_its_extremes():
    logit = np.array([-np.inf, -1e30, -104, -80, -1, 0, 1, 80, 104, 1e30, np.inf], np.float32)
    p = sigmoid(logit)
    assert p.dtype == np.float32
    assert p[0] == 0 == p[1]
    assert p[-1] == 1 == p[-2]
    assert p[5] == 0.5
    assert (np.diff(p) >= 0).all()
    assert p[3] > 0  # 1 - sigmoid(80) would be 0
    assert np.isnan(sigmoid(np.array([np.nan], np.float32))).all()


def test_no_rows_and_rows_beyond_float32(bundle: Bundle):
    net = Network.of(bundle)
    d = bundle.reference_x.shape[1]
    assert [len(p) for p in probabilities(np.empty((0, d), np.float32), net, [])] == [0]
    huge = np.full((1, d), 3e38, np.float32) * np.where(np.arange(d) % 2, 1, -1).astype(np.float32)
    beside = np.concatenate([huge, bundle.reference_x[:9]])
    alone = probabilities(bundle.reference_x[:9], net, [])[0]
    assert probabilities(beside, net, [])[0][1:].tobytes() == alone.tobytes()


def test_every_tensor_of_an_adapter_counts(bundle: Bundle):
    net = Network.of(bundle)
    base = changed(first_adapter(bundle), 5)
    x = bundle.reference_x[:50]
    before = probabilities(x, net, [Folded.of(base, net)])[1]
    for name in reflex_shapes(bundle.manifest.hidden):
        other = msgspec.structs.replace(base, reflex=base.reflex | {name: base.reflex[name] + np.float32(0.5)})
        assert probabilities(x, net, [Folded.of(other, net)])[1].tobytes() != before.tobytes(), name
