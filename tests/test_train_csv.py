"""A table of one's own, end to end in-process: trained, judged, streamed, and its drift named by its column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from confluent_kafka import Message
from tables import Rows, cards, claims, write
from typer.testing import CliRunner

from healer.columns import find_order
from healer.diagnose import Diagnosis, diagnose
from healer.knowledge import Knowledge
from producer.csv_source import CsvSource
from producer.labels import LabelPlan
from producer.service import run
from selfheal import feed
from selfheal.cli import app
from selfheal.table.fitting import calibration, fit_table
from selfheal.table.training import Trained, Wish, train_table
from shared import bundle as bundles
from shared.errors import OperatorError
from shared.profile import profile_of
from shared.records import Labels, Transactions, decode
from shared.settings import ProducerSettings
from shared.settings import load as load_settings

Floats = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def card(folder: Path) -> Trained:
    path = write(folder / "cards.csv", cards(1), encoding="utf-8-sig")
    return train_table(folder / "card", Wish(path, "Class", rule="age_days < 20", alerts_per_1000=30))


@pytest.fixture(scope="module")
def claim(folder: Path) -> Trained:
    path = write(folder / "claims.csv", claims(1), ";")
    return train_table(folder / "claim", Wish(path, "fraud", time="stamp", amount="sum"))


@pytest.fixture(scope="module")
def known(card: Trained) -> Knowledge:
    return Knowledge(profile_of(card.bundle))


def encoded(made: Trained, path: Path, rows: Rows, drift: list[str]) -> list[Floats]:
    """What `selfheal produce --csv` would put on the wire."""
    options = feed.CsvOptions(write(path, rows), (), None, None, None)
    source = feed.from_csv(options, made.bundle.features, rows=100, table=made.bundle.manifest.table)
    return [b.rows.astype(np.float32).astype(np.float64) for b in feed.drifted(source, drift).batches()]


def auc(score: np.ndarray, fraud: np.ndarray) -> float:
    """Mann and Whitney's: a fraud scores higher than another row."""
    ranks = np.argsort(np.argsort(score)) + 1
    n = int(fraud.sum())
    return float((ranks[fraud].sum() - n * (n + 1) / 2) / (n * (len(fraud) - n)))


@pytest.mark.parametrize("name", ["card", "claim"])
def test_the_model_is_worth_more_than_flagging_nobody(name: str, request: pytest.FixtureRequest) -> None:
    made: Trained = request.getfixturevalue(name)
    judged = made.judged
    assert judged.cost < 0.5 * judged.cost_of_none
    assert judged.scores.accuracy > 1 - judged.frauds / judged.rows
    assert judged.scores.f1 > 0.6
    assert made.bad == 0


def test_ranks_on_fresh_rows(card: Trained, folder: Path) -> None:
    rows = cards(77, 4_000)
    x = np.concatenate(encoded(card, folder / "fresh.csv", rows, []))
    fraud = np.array([r["Class"] == "1" for r in rows])
    assert auc(profile_of(card.bundle).logit(x), fraud) > 0.95


def test_the_bundle_says_what_it_was_made_of(card: Trained) -> None:
    manifest = card.bundle.manifest
    table = manifest.table
    assert table is not None
    assert table.features() == card.bundle.features
    assert set(table.unused) == {"id", "when", "currency", "note", "weekday"}
    affine = {n for n, able in zip(card.bundle.features, card.bundle.affine, strict=True) if able}
    assert {"amount", "age_days", "spread"} <= affine <= {"amount", "age_days", "spread", "hourly"}
    assert (manifest.rule, manifest.watched) == (bundles.Rule(feature="age_days", op="<", threshold=20.0), "age_days")
    assert manifest.alerts_per_1000 == 30
    assert manifest.thresholds.conflict <= manifest.thresholds.flag
    assert (card.kept, card.kept_trained) == (3_000, 0)


def test_a_missed_fraud_costs_its_amount(claim: Trained, folder: Path) -> None:
    costs = claim.bundle.manifest.costs
    rows = sorted(claims(1), key=lambda r: int(r["stamp"]))[: claim.parts["training"]]
    amounts = [float(r["sum"]) for r in rows if r["fraud"] == "true"]
    assert costs.missed_fraud == pytest.approx(np.mean(amounts), rel=1e-6)
    assert claim.bundle.manifest.thresholds.flag == pytest.approx(1 / (1 + costs.missed_fraud))
    assert claim.bundle.manifest.rule is None


def test_the_same_seed_makes_the_same_bundle(claim: Trained, folder: Path) -> None:
    again = train_table(folder / "again", Wish(folder / "claims.csv", "fraud", time="stamp", amount="sum"))
    assert again.bundle.hash == claim.bundle.hash


def looks(known: Knowledge, stream: list[Floats]) -> list[Diagnosis]:
    """One look at each ten batches."""
    return [diagnose(known, stream[i : i + 10]) for i in range(0, len(stream) - 9, 5)]


def test_cents_for_euros_are_named_by_their_column(card: Trained, known: Knowledge, folder: Path) -> None:
    stream = encoded(card, folder / "cents.csv", cards(5, 3_000), ["unit:amount:100"])
    found = looks(known, stream)
    for each in found:
        assert each.verdict in ("units", "scale"), each.reason
        assert [card.bundle.features[c.feature] for c in each.changes] == ["amount"]
        assert each.changes[0].scale == pytest.approx(100, rel=0.15)
    assert [d.changes[0].scale for d in found if d.verdict == "units" and d.promote].count(100.0) >= 2


def test_a_quiet_table_is_left_alone(card: Trained, known: Knowledge, folder: Path) -> None:
    found = looks(known, encoded(card, folder / "quiet.csv", cards(6, 4_000), []))
    assert not any(d.promote for d in found)
    assert sum(d.verdict in ("none", "harmless") for d in found) >= len(found) - 1


def test_no_affine_change_is_claimed_of_categories(card: Trained, known: Knowledge, folder: Path) -> None:
    rows = cards(8, 2_000)
    for i, row in enumerate(rows):
        row["country"] = "NG" if i % 3 else row["country"]
        row["shop"] = "a new one" if i % 2 else row["shop"]
    found = looks(known, encoded(card, folder / "places.csv", rows, []))
    assert {d.verdict for d in found} == {"unexplained"}
    assert not [c for d in found for c in d.changes if not card.bundle.affine[c.feature]]


def test_the_network_takes_rows_as_they_are(card: Trained) -> None:
    """Scaling is folded into the first layer: the same answers as on scaled columns, whatever the units."""
    rng = np.random.default_rng(3)
    y = (rng.random(1_500) < 0.2).astype(np.float32)
    x = np.column_stack([rng.standard_normal(1_500) + 2 * y, rng.integers(0, 2, 1_500)]).astype(np.float32)
    big = np.column_stack([1e4 + 500 * x[:, 0], x[:, 1]]).astype(np.float32)
    logits = []
    for rows in (x, big):
        made = fit_table(rows[:1_000], y[:1_000], rows[1_000:], y[1_000:], many=[True, False], seed=1)
        with torch.inference_mode():
            logits.append(made.model.frozen(torch.from_numpy(rows)).numpy())
    np.testing.assert_allclose(logits[0], logits[1], atol=0.05)
    assert auc(logits[0], y == 1) > 0.85


def test_calibration_undoes_an_overconfident_logit() -> None:
    rng = np.random.default_rng(2)
    logit = rng.normal(-2, 2, 20_000)
    y = (rng.random(20_000) < 1 / (1 + np.exp(-logit))).astype(float)
    slope, offset = calibration(3 * logit - 1, y)
    assert slope == pytest.approx(1 / 3, abs=0.02)
    assert offset == pytest.approx(1 / 3, abs=0.1)


def test_a_table_that_is_streamed_tells_what_it_filled_in(card: Trained, folder: Path) -> None:
    rows = cards(9, 300)
    rows[3]["amount"], rows[4]["Class"], rows[5]["country"], rows[6]["age_days"] = "much", "maybe", "XX", "?"
    for row in rows:
        row["shop"] = "shop 1"
    source = CsvSource(write(folder / "s.csv", rows), card.bundle.features, table=card.bundle.manifest.table)
    batches = list(source.batches())
    assert source.labelled
    assert sum(len(b.rows) for b in batches) == 298
    assert source.faults == ["line 5: amount: 'much' is not a number", "line 6: Class: 'maybe' is not a number"]
    column = card.bundle.features.index("country=other")
    assert np.concatenate([b.rows for b in batches])[:, column].sum() == source.unknown["country"] == 1
    told = feed.told(source)
    assert [line.split()[:2] for line in told] == [
        ["2", "bad"],
        [str(source.missing["age_days"]), "empty"],
        ["1", "unknown"],
    ]
    unlabelled = [{k: v for k, v in row.items() if k != "Class"} for row in rows]
    plain = CsvSource(write(folder / "u.csv", unlabelled), card.bundle.features, table=card.bundle.manifest.table)
    assert not plain.labelled
    with pytest.raises(OperatorError, match="no column 'amount'"):
        CsvSource(write(folder / "v.csv", [{"x": "1"}]), card.bundle.features, table=card.bundle.manifest.table)


@pytest.mark.broker
def test_a_table_on_the_wire(
    kafka: dict[str, str], prefix: str, read_topic: Callable[..., list[Message]], card: Trained, folder: Path
) -> None:
    options = feed.CsvOptions(write(folder / "wire.csv", cards(10, 60)), (), None, "amount", "id")
    source = feed.from_csv(options, card.bundle.features, rows=20, table=card.bundle.manifest.table)
    sent = feed.drifted(source, ["unit:amount:100:from=3"])
    done = run(load_settings(ProducerSettings, prefix=prefix), kafka, sent, labels=LabelPlan(delay=1))
    assert (done.batches, done.rows, done.labels, done.outstanding) == (3, 60, 2, 1)
    by_id = {b.batch_id: b for b in (decode(Transactions, m.value()) for m in read_topic("transactions"))}
    last = by_id[max(by_id)]
    amount = card.bundle.features.index("amount")
    assert last.amounts is not None
    np.testing.assert_allclose([r[amount] for r in last.features], 100 * np.array(last.amounts), rtol=1e-6)
    labels = [decode(Labels, m.value()) for m in read_topic("labels")]
    assert sum(len(r.labels) for r in labels) == 40


def test_the_command_says_what_it_did(folder: Path) -> None:
    path = write(folder / "cli.csv", cards(2, 6_000))
    out = CliRunner().invoke(app, [
        "train", "--csv", str(path), "--label", "Class", "--rule", "country = NG", "--amount", "amount", "--out",
        str(folder / "cli"), "--ignore", "shop", "--alerts-per-1000", "20",
    ])  # fmt: skip
    assert out.exit_code == 0, out.output
    for said in (
        "6000 rows: the first 3600 train, 900 check and calibrate, the last 1500 are held out",
        "note: ids or free text", "shop: --ignore names it", "rule: country=NG > 0.5", "flag nobody", "precision at 30",
        "the mean amount of frauds", "kept for diagnosis:",
    ):  # fmt: skip
        assert said in out.output
    assert bundles.load(folder / "cli").manifest.table is not None


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--label", "Class"], "--label: these go with --csv"),
        (["--csv", "FILE"], "--label is missing"),
        (["--csv", "FILE", "--label", "Klass"], "no column 'Klass'; the header has id, when"),
        (["--csv", "FILE", "--label", "Class", "--rule", "V14 < 1"], "--rule V14 < 1: no column 'V14'"),
        (["--csv", "FILE", "--label", "Class", "--amount", "country"], "--amount country: it is no column of numbers"),
        (["--csv", "FILE", "--label", "Class", "--amount", "amount", "--cost-missed", "3"], "leave out --cost-missed"),
        (["--csv", "FILE", "--label", "Class", "--cost-missed", "-3"], "--cost-missed -3: give more than 0"),
        (["--csv", "FILE", "--label", "Class", "--keep", "nothing"], "no column 'nothing'"),
    ],
)
def test_what_cannot_be_done_names_the_option(folder: Path, flags: list[str], why: str) -> None:
    path = write(folder / "small.csv", cards(3, 2_600))
    out = CliRunner().invoke(
        app, ["train", "--out", str(folder / "none"), *[str(path) if f == "FILE" else f for f in flags]]
    )
    assert isinstance(out.exception, OperatorError)
    assert why in str(out.exception)
    assert not (folder / "none").exists()


def test_columns_of_a_table_stay_in_place(known: Knowledge, card: Trained, folder: Path) -> None:
    assert find_order(known, np.concatenate(encoded(card, folder / "o.csv", cards(11, 1_000), []))) is None
