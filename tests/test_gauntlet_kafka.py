"""A drift through four real processes goes, event for event, as it does in memory."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from selfheal.gauntlet.over_kafka import differences, run_over_kafka
from shared.errors import OperatorError
from shared.kafka import list_topics


@pytest.mark.broker
@pytest.mark.timeout(200)
def test_a_shift_heals_over_kafka_as_in_memory(kafka: dict[str, str], tmp_path: Path) -> None:
    (one,) = run_over_kafka(kafka, ["S1"], 7, tmp_path, drifted=7)
    assert one.differences == []
    rows, inside = one.over.rows, one.inside.rows
    assert [r.adapter_version for r in rows] == [r.version for r in inside]
    assert [r.verdict for r in rows] == [r.verdict for r in inside]
    assert {"v1", "v2"} <= {r.adapter_version for r in rows}
    assert rows[-1].verdict == "shift"
    kinds = [e.kind for e in one.over.events]
    assert kinds.index("alarm") < kinds.index("heal-finished") < kinds.index("adapter-activated")
    told = json.loads((tmp_path / "S1" / "events.json").read_text())
    assert [e["kind"] for e in told] == kinds
    assert not [name for name in list_topics(kafka) if name.startswith("gauntlet-")]

    # the comparison sees what it is for
    other = msgspec.structs.replace(one.over, rows=rows[:-1], events=one.over.events[1:], active="v9")
    found = list(differences(other, one.inside.told))
    assert found[0].startswith(f"batch {rows[-1].batch_idx}: over Kafka nothing")
    assert any(line.startswith(f"event: over Kafka {kinds[1]}") for line in found)
    assert found[-1] == f"active at the end: over Kafka v9, in memory {one.over.active}"


def test_labels_that_come_late_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="S9L: labels that come late"):
        list(run_over_kafka({}, ["S9L"], 1, tmp_path))
