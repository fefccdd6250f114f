"""Empty cells: the feeder puts the median there, in the unit of the training, whatever the feed's unit has become."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from healer.diagnose import diagnose
from healer.knowledge import Knowledge, knowledge_of
from producer.csv_source import CsvSource
from selfheal.table.training import Wish, train_table
from shared.adapters import first_adapter
from shared.alignment import Floats, align, alignment_of
from shared.bundle import Bundle
from shared.fills import Fill, fills_of
from shared.forward import Folded, Network, probabilities
from shared.profile import profile_from

AMOUNT, FLAG, PLAIN = range(3)
MEDIAN = 20.0
FILLS = (Fill(AMOUNT, FLAG, MEDIAN),)
EMPTY = (0.15, 0.5)  # of normals, of frauds: emptiness itself tells


def rows(seed: int, n: int, scale: float = 1.0, *, fill_too: bool = False) -> tuple[Floats, Floats]:
    """An amount that arrives times `scale`, and so do the medians put in where fill_too."""
    rng = np.random.default_rng([seed, 17])
    y = (rng.random(n) < 0.12).astype(np.float64)
    amount = MEDIAN * np.exp(rng.normal(0.9 * y, 0.6))
    empty = rng.random(n) < np.where(y == 1, EMPTY[1], EMPTY[0])
    filled = np.where(empty, MEDIAN * (scale if fill_too else 1.0), amount * scale)
    return np.column_stack([filled, empty, rng.normal(1.5 * y, 1)]).astype(np.float32).astype(np.float64), y


def logit(x: npt.NDArray[np.floating]) -> Floats:
    at = np.asarray(x, np.float64)
    told = 2.0 * np.log(np.clip(at[:, AMOUNT], 1e-3, 1e6) / MEDIAN)
    return np.asarray(told + 1.5 * at[:, FLAG] + 1.6 * at[:, PLAIN] - 4.0)


KNOWN = Knowledge(profile_from(*rows(0, 4_000), logit, fills=FILLS))


@pytest.mark.parametrize("fill_too", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("scale", [100.0, 0.01, 10.0])
def test_a_unit_is_told_whatever_became_of_the_medians(scale: float, seed: int, *, fill_too: bool) -> None:
    found = diagnose(KNOWN, list(np.split(rows(seed, 1_000, scale, fill_too=fill_too)[0], 10)))
    assert found.alignment is not None, found.reason
    assert found.alignment.moved == [AMOUNT]
    assert found.alignment.scale[AMOUNT] == scale
    if scale > 1:  # else a hundredth of what was: little enough that fraud elsewhere might explain it too
        assert found.promote, found.reason


@pytest.mark.parametrize("seed", range(4, 12))
def test_quiet_rows_with_empty_cells_follow_the_reference(seed: int) -> None:
    assert diagnose(KNOWN, list(np.split(rows(seed, 1_000)[0], 10))).verdict == "none"


def test_the_fraud_rate_among_cells_that_tell_is_another() -> None:
    x, y = rows(0, 4_000)
    told = x[:, FLAG] == 0
    rate = KNOWN.profile.among_told(AMOUNT, np.array(KNOWN.profile.fraud_rate))
    assert float(rate) == pytest.approx(y[told].mean())
    assert float(rate) < KNOWN.profile.fraud_rate - 0.03


def test_a_column_that_is_hardly_ever_told_is_read_as_it_comes() -> None:
    x, y = rows(0, 4_000)
    x[:-40, FLAG] = 1
    assert not profile_from(x, y, logit, fills=FILLS).fills


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A bundle of a table with empty cells, and the table's later rows with its amounts in another unit."""
    folder, (x, y) = tmp_path_factory.mktemp("table"), rows(5, 6_000)
    for name, part, unit in (("train", slice(0, 4_500), 1.0), ("later", slice(4_500, None), 100.0)):
        amounts = ["" if empty else f"{unit * a:.4f}" for a, empty in x[part, :2]]
        lines = [f"{a},{p:.4f},{int(f)}" for a, p, f in zip(amounts, x[part, PLAIN], y[part], strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["amount,plain,fraud", *lines]) + "\n")
    return train_table(folder / "bundle", Wish(folder / "train.csv", "fraud")).bundle, folder / "later.csv"


def test_of_a_table_whose_cells_changed_their_unit_the_model_is_as_good_as_before(table: tuple[Bundle, Path]) -> None:
    bundle, later = table
    assert bundle.fills == fills_of(bundle.manifest.table, bundle.features)
    assert [bundle.features[f.flag] for f in bundle.fills] == ["amount is missing"]
    batches = list(CsvSource(later, bundle.features, table=bundle.manifest.table).batches())
    x = np.concatenate([b.rows for b in batches]).astype(np.float32)[:1_000]
    found = diagnose(knowledge_of(bundle), list(np.split(x.astype(np.float64), 10)))
    assert (found.verdict, found.promote) == ("units", True), found.reason
    assert found.alignment is not None

    network, rate = Network.of(bundle), knowledge_of(bundle).profile.fraud_rate
    adapter = align(first_adapter(bundle), found.alignment, rate)
    clean = x.copy()
    told = clean[:, bundle.features.index("amount is missing")] == 0
    clean[told, bundle.features.index("amount")] /= 100
    served = probabilities(x, network, [Folded.of(adapter, network)])[1]
    assert served == pytest.approx(probabilities(clean, network, [])[0], abs=1e-4)
    held = alignment_of(adapter, rate)
    assert held.undo(x, bundle.fills) == pytest.approx(clean, rel=1e-5)
