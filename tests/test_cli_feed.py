"""From options to a source and a label plan; points in time; which bundle is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfheal import feed
from selfheal.since import since_ms
from selfheal.where import find_bundle, given_kafka
from shared.errors import OperatorError

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - 90_000), ("10m", NOW - 600_000), ("1.5h", NOW - 5_400_000), ("2d", NOW - 172_800_000),
        ("250ms", NOW - 250), ("now", NOW), ("beginning", 0), ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T00:00:01", 1_000), ("1970-01-01T01:00:01+01:00", 1_000),
    ],
)  # fmt: skip
def test_since(text: str, expected: int) -> None:
    assert since_ms(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "ten minutes", "10", "-5m", "10 m", "yesterday"])
def test_since_that_is_no_time_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(OperatorError, match=r"--until .*10m"):
        since_ms(text, NOW, "--until")


def test_scenario_and_steps_compose() -> None:
    plain = feed.synthetic(seed=1, rows=50, scenario=None, strength=None, drift=[], labelled=True)
    both = feed.synthetic(seed=1, rows=50, scenario="S1", strength=None, drift=["outage:V9:0"], labelled=True)
    assert len(both.steps) == 2
    before, after = plain.batch(11).rows, both.batch(11).rows
    assert np.allclose(after[:, 7], before[:, 7] - 2.2)
    assert (after[:, 2] == 0).all()


def test_strength_without_the_reference_scenario_is_refused() -> None:
    with pytest.raises(OperatorError, match="--scenario reference"):
        feed.synthetic(seed=1, rows=50, scenario=None, strength=3.0, drift=[], labelled=True)


def test_label_delay() -> None:
    def plan(delay: str) -> int | None:
        return feed.label_plan(delay=delay, audit_share=0, audit_delay=0, seed=0, flush=False).delay

    assert plan("0") == 0
    assert plan("20") == 20
    assert plan("never") is None
    with pytest.raises(OperatorError, match="--label-delay -1"):
        plan("-1")


def test_csv_with_renamed_columns(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("amount_z,b,fraud\n1,2,0\n3,4,1\n5,6,0\n")
    options = feed.CsvOptions(file, ["a=amount_z"], "fraud", None, None)
    source = feed.drifted(feed.from_csv(options, ["a", "b"], rows=2), ["shift:b:10"])
    batches = list(source.batches())
    assert [b.rows.tolist() for b in batches] == [[[1, 12], [3, 14]], [[5, 16]]]
    with pytest.raises(OperatorError, match="FEATURE=COLUMN"):
        feed.from_csv(options._replace(columns=["a"]), ["a", "b"], rows=2)


def test_which_bundle_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    with pytest.raises(OperatorError, match="selfheal train"):
        find_bundle(None, data, {})
    for folder in (data / "bundle", tmp_path / "bundle"):
        folder.mkdir(parents=True)
        (folder / "bundle.json").touch()
        assert find_bundle(None, data, {}).resolve() == folder
    assert find_bundle(None, data, {"SELFHEAL_BUNDLE": "told"}) == Path("told")
    assert find_bundle(Path("flag"), data, {"SELFHEAL_BUNDLE": "told"}) == Path("flag")


def test_a_given_cluster_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "example:9092")
    assert (given_kafka() or {})["bootstrap.servers"] == "example:9092"
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert given_kafka() is None
