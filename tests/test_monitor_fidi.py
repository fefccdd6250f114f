"""FIDI by hand, and what it says of features that never moved in training."""

from __future__ import annotations

import pytest

from monitor.fidi import WINDOW, Calibration, Window, pushed, top_features, z_score

TWO = Calibration(["noise", "V14"], 1, [1.0, -0.5], [2.0, 0.25])


def window_of(*v14: float, rows: int = 4) -> Window:
    window: Window = []
    for mean in v14:
        window = pushed(window, [1.0 * rows, mean * rows], rows)
    return window


def test_z_is_undefined_before_three_batches() -> None:
    assert z_score(window_of(-1.0, -1.0), 1, TWO) is None
    assert z_score(window_of(-1.0, -1.0, -1.0), 1, TWO) == pytest.approx(2.0)


def test_z_is_the_distance_of_the_windows_mean_in_deviations() -> None:
    assert z_score(window_of(-1.0, 0.0, 0.25), 1, TWO) == pytest.approx(abs(-0.25 + 0.5) / 0.25)


def test_only_the_last_ten_batches_count() -> None:
    window = window_of(*[100.0] * 5, *[-0.5] * WINDOW)
    assert len(window) == WINDOW
    assert z_score(window, 1, TWO) == 0.0


def test_a_feature_constant_in_training_is_measured_in_its_own_units() -> None:
    constant = Calibration(["V14"], 0, [3.0], [0.0])
    window = [[5.0]] * 3
    assert z_score(window, 0, constant) == pytest.approx(2.0)


def test_top_features_come_largest_first() -> None:
    assert top_features(window_of(0.0, 0.0, 0.0), TWO) == {"V14": 2.0, "noise": 0.0}
    assert top_features(window_of(0.0), TWO) == {}
