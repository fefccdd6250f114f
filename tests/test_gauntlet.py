"""One seed through the fast path: what rows alone show is undone, what they do not show is refused."""

from __future__ import annotations

import json

from selfheal.gauntlet.play import play
from selfheal.gauntlet.summary import as_json, table


def test_a_shift_is_undone_and_a_new_mechanism_is_refused() -> None:
    found = play([100], ("S1", "S9"), processes=1)
    shift, mechanism = found["S1"], found["S9"]
    assert shift.recovery_mean is not None
    assert shift.recovery_mean > 0.95
    assert shift.first_heal_max is not None
    assert shift.first_heal_max <= 5
    assert mechanism.refused == 1.0
    assert mechanism.verdict_last == 1.0
    assert max(shift.worst_harm_accuracy, mechanism.worst_harm_accuracy) <= 0.005
    assert json.loads(as_json(found, 1))["scenarios"]["S1"]["recovery_mean"] == shift.recovery_mean
    assert [line.split()[0] for line in table(found).splitlines()[1:]] == ["S1", "S9"]
