"""selfheal/experiment/ceiling.py: what the drift allows any model."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal.experiment.ceiling import ceiling, posterior
from selfheal.experiment.evaluate import drifted_generator
from shared.bundle import Costs
from shared.scores import expected_cost


def test_the_published_drift_leaves_little_to_reach() -> None:
    best = ceiling(2.2)
    assert best.f1 == pytest.approx(0.295, abs=0.001)
    assert best.auc == pytest.approx(0.606, abs=0.001)
    assert best.accuracy == best.accuracy_all_negative == 0.85
    assert best.cost < best.cost_all_negative == pytest.approx(0.75)


def test_without_drift_the_classes_are_told_apart() -> None:
    best = ceiling(0.0)
    assert best.accuracy == pytest.approx(0.9416, abs=0.0005)
    assert best.f1 == pytest.approx(0.8045, abs=0.0005)


def test_ceilings_are_met_by_the_true_posterior_on_many_rows() -> None:
    x, y = drifted_generator(2.2).rows(np.random.default_rng(5), 200_000)
    p = posterior(x[:, 7], 2.2)
    best = ceiling(2.2)
    assert expected_cost(p, y, Costs()) == pytest.approx(best.cost, abs=0.01)
    flags = p[:, None] > np.quantile(p, np.linspace(0, 1, 101))
    hits = (flags & (y == 1)[:, None]).sum(axis=0)
    assert (2 * hits / (flags.sum(axis=0) + (y == 1).sum())).max() == pytest.approx(best.f1, abs=0.005)
    among = (p > 0.15) & (p < 0.20)
    assert y[among].mean() == pytest.approx(p[among].mean(), abs=0.01)


def test_dearer_frauds_are_flagged_sooner() -> None:
    usual, dear = ceiling(2.2, Costs()), ceiling(2.2, Costs(missed_fraud=50.0))
    assert dear.cost_threshold < usual.cost_threshold
    assert dear.cost <= dear.cost_all_positive < dear.cost_all_negative
