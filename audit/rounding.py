"""How far float32 itself may stand from the exact probability of a row.

Scorers compute in float32, the auditor in float64. On rows like those a model was trained on, and up to five times as
far out, the two differ by less than 1e-6 (measured: 7e-7 at most of 200,000 rows each). Farther out sums cancel, and
float32 alone is off by more (4e-6 at twenty to a hundred times, 3e-5 with an alignment beside). So a row that misses
1e-6 is computed again in float32, its sums taken in several other orders: what those differ by is what rounding does to
this row, and no more than SLACK times that is forgiven (of 1,900 such rows 1.7 was the most that was needed).
"""

from __future__ import annotations

import numpy as np

from audit.network import Adapter, Bundle, Floats, Tensors, probabilities

TOLERANCE = 1e-6
ORDERS = 5
SLACK = 4.0


def noise(x: Floats, bundle: Bundle, adapter: Adapter) -> tuple[Floats, Floats]:
    """(n, d) to the greatest error of float32 sums in ORDERS orders, of the shadow and of the adapter: (n,) each."""
    exact = probabilities(x, bundle, [adapter])
    worst = [np.zeros(len(x)), np.zeros(len(x))]
    for seed in range(ORDERS):
        found = probabilities(x, *_reordered(bundle, adapter, seed), np.float32)
        for i in (0, 1):
            worst[i] = np.maximum(worst[i], np.abs(found[i].astype(np.float64) - exact[i]))
    return worst[0], worst[1]


def _reordered(bundle: Bundle, adapter: Adapter, seed: int) -> tuple[Bundle, list[Adapter]]:
    """The same network with its hidden units in another order: equal but for rounding."""
    rng, w = np.random.default_rng(seed), dict(bundle.weights)
    first, second, third = (rng.permutation(len(w["backbone.0.bias"])) for _ in range(3))
    w["backbone.0.weight"], w["backbone.0.bias"] = w["backbone.0.weight"][first], w["backbone.0.bias"][first]
    w["backbone.2.weight"] = w["backbone.2.weight"][second][:, first]
    w["backbone.2.bias"], w["head.weight"] = w["backbone.2.bias"][second], w["head.weight"][:, second]
    t: Tensors = dict(adapter.tensors)
    t["reflex.0.weight"], t["reflex.0.bias"] = t["reflex.0.weight"][third][:, second], t["reflex.0.bias"][third]
    t["reflex.2.weight"], t["reflex.2.bias"] = t["reflex.2.weight"][second][:, third], t["reflex.2.bias"][second]
    return bundle._replace(weights=w), [adapter._replace(tensors=t)]
