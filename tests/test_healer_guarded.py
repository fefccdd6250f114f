"""The answer to a diagnosis: what is published, what is said, and that they are the same numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healer.diagnose import LOGIT_BOUND, SCALE_BOUND, SHIFT_BOUND, out_of_bounds
from healer.guarded import Outcome, diagnosed
from healer.knowledge import Knowledge, knowledge_of
from healer.rows import Entry
from healer.verdicts import short, what_happened
from producer.scenarios import SCENARIOS
from selfheal.gauntlet.world import arrivals
from shared.adapters import Adapter, first_adapter
from shared.alignment import Alignment, align, alignment_of, identity
from shared.bundle import Bundle
from shared.errors import Refused
from shared.records import HealRequest, OffsetRange

V14 = 7


@pytest.fixture(scope="module")
def knowledge(bundle: Bundle) -> Knowledge:
    return knowledge_of(bundle)


def request_for(blocks: list[int], **more: object) -> HealRequest:
    where = OffsetRange(topic="transactions", partition=0, start=0, end=1)
    fields: dict[str, Any] = {
        "request_id": "heal-1", "policy": "guarded", "reason": "alarm", "base_version": "v1", "bundle": "b",
        "batch_id": "b", "at": "t", "transactions": [where] * sum(blocks), "blocks": blocks,
        "parameters": {"first_batch_idx": 11}, **more,
    }  # fmt: skip
    return HealRequest(**fields)


def entries_of(knowledge: Knowledge, name: str, count: int, skip: int = 10) -> list[Entry]:
    stream = list(arrivals(SCENARIOS[name], 3, knowledge.profile.logit, skip + count))[skip:]
    return [Entry(a.x, np.full(len(a.y), -1, np.int8), np.full(len(a.y), False)) for a in stream]


def answer(bundle: Bundle, knowledge: Knowledge, name: str, base: Adapter | None = None, count: int = 10) -> Outcome:
    entries = entries_of(knowledge, name, count)
    return diagnosed(bundle, knowledge, request_for([1] * count), entries, base or first_adapter(bundle), "v7")


def test_a_repair_is_told_as_it_is_held(bundle: Bundle, knowledge: Knowledge) -> None:
    found = answer(bundle, knowledge, "S8")
    assert (found.kind, found.stage, found.facts["verdict"]) == ("heal-finished", "post-heal", "both")
    repair = found.adapter
    assert repair is not None
    assert (repair.version, repair.parent) == ("v7", "v1")
    said = json.loads(json.dumps(found.facts))
    read = Alignment(tuple(said["shift"]), tuple(said["scale"]), said["fraud_rate"], tuple(said["order"]))
    assert read == alignment_of(repair, knowledge.profile.fraud_rate)
    assert said["changes"][0]["feature"] == "V14"
    assert said["changes"][0]["shift"] == float(repair.shift[V14])
    assert said["flagged_before"] > said["flagged_after"]
    assert said["post_version"] == "v7"
    assert found.message.startswith("V14 shifted by -2.")
    assert f"fraud rate 15% -> {said['fraud_rate']:.0%}" in found.message
    assert "since batch 11; undone by v7; estimated accuracy ." in found.message


@pytest.mark.parametrize(
    ("name", "verdict", "message"),
    [
        ("S0", "none", "nothing undone: the rows follow the reference"),
        ("S9", "unexplained", "; not healable without labels"),
        ("S10", "outage", "refused: V14 sends one value: what it told is gone since batch 11; not healable"),
    ],
)
def test_nothing_is_published_where_nothing_can_be_undone(
    bundle: Bundle, knowledge: Knowledge, name: str, verdict: str, message: str
) -> None:
    found = answer(bundle, knowledge, name)
    assert (found.kind, found.adapter, found.facts["verdict"]) == ("diagnosed", None, verdict)
    assert found.facts["promote"] is False
    assert message in found.message
    assert "post_version" not in found.facts
    assert found.facts["shift"] == (0.0,) * 10


def test_the_same_request_has_the_same_answer(bundle: Bundle, knowledge: Knowledge) -> None:
    one, two = (
        answer(bundle, knowledge, "S1"),
        answer(bundle, Knowledge(knowledge.profile, names=bundle.features), "S1"),
    )
    assert (one.message, one.facts) == (two.message, two.facts)
    assert one.adapter is not None
    assert two.adapter is not None
    assert one.adapter.shift.tobytes() == two.adapter.shift.tobytes()


def test_the_state_in_force_is_kept(bundle: Bundle, knowledge: Knowledge) -> None:
    repair = answer(bundle, knowledge, "S5").adapter
    assert repair is not None
    found = answer(bundle, knowledge, "S5", repair)
    assert (found.kind, found.facts["verdict"], found.facts["active_fits"]) == ("diagnosed", "units", True)
    assert found.facts["scale"] == alignment_of(repair, knowledge.profile.fraud_rate).scale


def test_what_was_learned_stays_with_the_law_it_was_learned_under(bundle: Bundle, knowledge: Knowledge) -> None:
    rate = knowledge.profile.fraud_rate
    first = first_adapter(bundle)
    reflex = {k: np.asarray(v + np.float32(0.01), np.float32) for k, v in first.reflex.items()}
    wise = msgspec.structs.replace(first, reflex=reflex, version="v3")
    other = answer(bundle, knowledge, "S1", wise).adapter
    shift = [0.0] * 10
    shift[V14] = -2.0
    close = answer(bundle, knowledge, "S1", align(wise, Alignment(tuple(shift), (1.0,) * 10, rate), rate)).adapter
    assert other is not None
    assert close is not None
    assert np.array_equal(other.reflex["reflex.0.bias"], first.reflex["reflex.0.bias"])
    assert np.array_equal(close.reflex["reflex.0.bias"], reflex["reflex.0.bias"])
    assert other.parent == close.parent == "v3"


def test_blocks_are_made_of_entries(bundle: Bundle, knowledge: Knowledge) -> None:
    entries = entries_of(knowledge, "S1", 6, skip=7)  # three quiet batches, three drifted ones
    found = diagnosed(bundle, knowledge, request_for([1, 2, 1, 2]), entries, first_adapter(bundle), "v2")
    assert (found.facts["n_blocks"], found.facts["rows"], found.facts["since_batch_idx"]) == (2, 300, 14)
    with pytest.raises(Refused, match="blocks: 4 entries in blocks, 6 named"):
        diagnosed(bundle, knowledge, request_for([4]), entries, first_adapter(bundle), "v2")
    with pytest.raises(Refused, match="blocks: 11 blocks, a diagnosis reads at most 10"):
        diagnosed(bundle, knowledge, request_for([1] * 11), [entries[0]] * 11, first_adapter(bundle), "v2")


finite = st.floats(-1e6, 1e6, allow_nan=False, width=64)


@given(st.lists(finite, min_size=10, max_size=10), st.lists(st.floats(1e-4, 1e4), min_size=10, max_size=10),
       st.floats(0.01, 0.8))  # fmt: skip
def test_an_alignment_survives_its_adapter(bundle: Bundle, shift: list[float], scale: list[float], rate: float) -> None:
    adapter = align(first_adapter(bundle), Alignment(tuple(shift), tuple(scale), rate), 0.15)
    held = alignment_of(adapter, 0.15)
    assert held.fraud_rate == pytest.approx(rate, rel=1e-5)
    assert alignment_of(align(first_adapter(bundle), held, 0.15), 0.15) == held


def test_the_identity_is_exact(bundle: Bundle) -> None:
    assert alignment_of(first_adapter(bundle), 0.1503) == identity(10, 0.1503)


@pytest.mark.parametrize(
    ("shift", "scale", "odds", "reason"),
    [
        (0.0, SCALE_BOUND * 1.01, 0.0, "V14 scaled by 2020"),
        (0.0, 0.99 / SCALE_BOUND, 0.0, "V14 scaled by"),
        (SHIFT_BOUND * 30, 1.0, 0.0, "V14 shifted by 3000: no more than 100 deviations"),
        (0.0, 1.0, LOGIT_BOUND + 0.01, "the odds of fraud are not moved by more than a factor of 30"),
        (5.0, 1000.0, 1.0, None),
    ],
)
def test_a_repair_keeps_within_bounds(
    knowledge: Knowledge, shift: float, scale: float, odds: float, reason: str | None
) -> None:
    d, rate = knowledge.profile.d, knowledge.profile.fraud_rate
    moved = 1 / (1 + math.exp(-math.log(rate / (1 - rate)) - odds)) if odds else rate
    a, b = [0.0] * d, [1.0] * d
    a[V14], b[V14] = shift, scale
    found = out_of_bounds(knowledge, Alignment(tuple(a), tuple(b), moved))
    assert found is None if reason is None else reason in (found or "")


def test_changes_are_told_in_words() -> None:
    names = ("V3", "V4", "amount")
    swapped = Alignment((0.0,) * 3, (1.0,) * 3, 0.4, (1, 0, 2))
    assert what_happened(swapped, [], 0.15, names) == ["columns V3 and V4 swapped", "fraud rate 15% -> 40%"]
    cycled = Alignment((0.0,) * 3, (1.0,) * 3, 0.15, (1, 2, 0))
    assert what_happened(cycled, [], 0.15, names) == [
        "3 columns in another order (V3 in the place of V4, V4 in the place of amount, amount in the place of V3)"
    ]
    assert [short(0.64), short(-0.04, sign=True), short(1.0), short(0.3, sign=True)] == [".64", "-.04", "1.00", "+.30"]
