"""selfheal/experiment/evaluate.py: the rows of the final table, and the scores on them."""

from __future__ import annotations

import numpy as np

from selfheal import training
from selfheal.experiment import evaluate
from selfheal.experiment.evaluate import clean_rows, drifted_rows, outcome, stream_rows_as_published
from shared.adapters import first_adapter
from shared.bundle import Bundle


def test_clean_rows_are_those_that_training_held_out(bundle: Bundle) -> None:
    assert evaluate.TRAIN_ROWS == training.TRAIN_ROWS
    first = first_adapter(bundle)
    found = evaluate.evaluate(bundle, first, first, int(bundle.manifest.training["seed"]), 2.2)
    assert found["clean"].scores == bundle.manifest.clean
    assert found["healed"] == found["drift"]  # the bundle's own adapter changes nothing


def test_drifted_rows_are_as_published() -> None:
    rows = [drifted_rows(seed, 2.2) for seed in range(20)]
    assert all(r.y.sum() == 150 and r.x.shape == (1_000, 10) and r.x.dtype == np.float32 for r in rows)
    v14 = np.concatenate([r.x[:, 7] for r in rows])
    assert abs(v14.mean() - -2.245) < 0.02  # published on its one set: -2.261
    assert abs((v14 < -1.5).mean() - 0.778) < 0.01  # published: 77.4%
    assert not np.array_equal(clean_rows(3).x, drifted_rows(3, 2.2).x)


def test_the_published_stream_is_drawn_from_the_table_no_row_twice_in_a_batch() -> None:
    table = {row.tobytes(): y for row, y in zip(*[getattr(drifted_rows(7, 2.2), n) for n in "xy"], strict=True)}
    batches = stream_rows_as_published(7, 2.2)
    assert len(batches) == 25
    for batch in batches:
        assert len({row.tobytes() for row in batch.x}) == 100
        assert all(table[row.tobytes()] == y for row, y in zip(batch.x, batch.y, strict=True))
    assert not np.array_equal(batches[0].x, batches[1].x)


def test_outcome_counts_by_hand(bundle: Bundle) -> None:
    y = np.array([1, 1, 0, 0, 0], np.int8)
    found = outcome(np.array([0.9, 0.3, 0.6, 0.2, 0.1]), y, bundle)
    assert (found.tp, found.tn, found.fp, found.fn) == (1, 2, 1, 1)
    assert (found.accuracy, found.precision, found.recall, found.f1) == (0.6, 0.5, 0.5, 0.5)
    assert found.cost == 2 / 5  # at p > 1/6 both frauds are flagged, and two others
