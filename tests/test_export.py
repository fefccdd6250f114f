"""monitor/export.py: topics to files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from monitor.export import Run, events_json, export_run, metrics_csv, thresholds_json, write_run
from shared.kafka import Out, Writer
from shared.records import Control, Event, Metrics, encode
from shared.topics import topic_name


def row(k: int, **more: object) -> Metrics:
    fixed = {
        "batch_idx": k, "batch_id": f"s42-{k:06d}", "timestamp": f"2026-01-01T00:00:{k:02d}Z", "rows": 100,
        "z_score": None, "n_conflicts": 7,
    }  # fmt: skip
    return Metrics(**{**fixed, **more})


def test_csv_has_every_column_in_order_and_exact_floats() -> None:
    text = metrics_csv([row(1, z_score=0.1 + 0.2, rolled_back=True)]).decode()
    (read,) = csv.DictReader(io.StringIO(text))
    assert tuple(read) == Metrics.__struct_fields__[:-4]
    (guarded,) = csv.DictReader(io.StringIO(metrics_csv([row(1, verdict="none")]).decode()))
    assert tuple(guarded) == Metrics.__struct_fields__
    assert read["z_score"] == "0.30000000000000004"
    assert read["rolled_back"] == "true"
    assert read["settled"] == "false"
    assert read["f1_healed"] == ""


def test_csv_survives_a_batch_id_full_of_commas_and_quotes() -> None:
    name = 'a,"b"\nc'
    (read,) = csv.DictReader(io.StringIO(metrics_csv([row(1, batch_id=name)]).decode(), newline=""))
    assert read["batch_id"] == name


def test_events_keep_their_facts_but_no_stopwatch() -> None:
    event = Event(at="2026-01-01T00:00:03Z", kind="heal-finished", message="m", facts={"rows": 100, "took_s": 0.02})
    (entry,) = json.loads(events_json([event]))
    assert entry["rows"] == 100
    assert "took_s" not in entry
    assert list(entry)[:2] == ["at", "kind"]


def test_thresholds_are_written_in_the_published_format() -> None:
    written = thresholds_json({"health_window": 5.0, "fidi_threshold": 1.0, "rollback_f1_drop": 0.08}).decode()
    assert '"health_window": 5\n' in written or '"health_window": 5,' in written
    assert json.loads(written) == {"fidi_threshold": 1.0, "health_window": 5, "rollback_f1_drop": 0.08}
    assert "1.0" in written


def test_same_run_same_bytes(tmp_path: Path) -> None:
    run = Run(rows=[row(1), row(2)], events=[], thresholds={"conflict_min": 5}, active="v1")
    for folder in ("a", "b"):
        write_run(run, tmp_path / folder)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["events.json", "metrics.csv", "threshold_config.json"]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


@pytest.mark.broker
def test_export_takes_the_last_row_of_each_batch_in_the_monitors_order(
    kafka: dict[str, str], prefix: str, tmp_path: Path
) -> None:
    def out(topic: str, key: str, record: msgspec.Struct) -> Out:
        return Out(topic_name(topic, prefix), key, encode(record))

    control = {"at": "2026-01-01T00:00:00Z", "by": "monitor", "reason": "test"}
    Writer(kafka, "test").publish(
        [
            out("metrics", "b2", row(2)),
            out("metrics", "b1", row(1)),
            out("metrics", "b1", row(1, n_conflicts=9, settled=True)),
            out("events", "scorer", Event(at="t", kind="service-started", message="up")),
            out("events", "monitor", Event(at="t", kind="rolled-back", message="back", facts={"to_version": "v3"})),
            out("control", "active", Control(setting="active", version="v5", **control)),
            out("control", "active", Control(setting="active", version="v3", **control)),
            out("control", "thresholds", Control(setting="thresholds", values={"conflict_min": 5}, **control)),
        ]
    )
    run = export_run(kafka, prefix, tmp_path)
    assert [(r.batch_idx, r.n_conflicts) for r in run.rows] == [(1, 9), (2, 7)]
    assert run.active == "v3"
    assert [e["to_version"] for e in json.loads((tmp_path / "events.json").read_text())] == ["v3"]
    assert json.loads((tmp_path / "threshold_config.json").read_text()) == {"conflict_min": 5}
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
