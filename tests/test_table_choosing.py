"""Which columns are used and how; what is refused with its reason; how rows are parted and thresholds set."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal.table import splitting
from selfheal.table.choosing import choose
from selfheal.table.deciding import flag_threshold, judge
from selfheal.table.loading import Codes, Loaded
from shared.bundle import Costs
from shared.errors import OperatorError
from shared.table.schema import Categories, Frequencies, Numeric, Table

N = 1_000
RNG = np.random.default_rng(4)
NUMBERS = {
    "plain": RNG.standard_normal(N),
    "holes": np.where(RNG.random(N) < 0.1, np.nan, RNG.exponential(9, N)),
    "one hole": np.where(np.arange(N) == 5, np.nan, RNG.poisson(3, N)),
    "empty": np.where(np.arange(N) < 30, 1.0, np.nan),
    "constant": np.where(np.arange(N) % 2 == 0, 7.0, np.nan),
    "id": RNG.permutation(N).astype(float),
    "clock": np.cumsum(RNG.exponential(3, N)),
    "hour": np.arange(N) // 40 % 24 + 0.0,
    "fine": 2e9 + RNG.standard_normal(N),
}
WORDS = {
    "few": [["a", "b", "c"][i % 7 % 3] for i in RNG.integers(0, 1000, N)],
    "many": [f"s{i}" for i in RNG.zipf(1.3, N) % 60],
    "text": [f"note {i}" for i in RNG.permutation(N)],
    "day": [f"2026-01-{1 + i // 40:02d}" for i in range(N)],
    "shuffled days": [f"{1 + i % 28}/01/2026" for i in RNG.integers(0, 1000, N)],
    "weekday": ["MTWTFSS"[i // 50 % 7] for i in range(N)],
    "same": ["x"] * N,
}


def coded(words: list[str]) -> Codes:
    known: dict[str, int] = {}
    return Codes(np.array([known.setdefault(w, len(known)) for w in words], np.int64), list(known))


@functools.cache
def table(keep: tuple[str, ...] = (), ignored: tuple[str, ...] = ()) -> Table:
    codes = {name: coded(words) for name, words in WORDS.items()}
    loaded = Loaded(np.zeros(N, np.int8), NUMBERS, codes, {}, 0, [], [*NUMBERS, *WORDS])
    return choose(loaded, slice(0, N), label="y", time=None, amount=None, ignored=ignored, keep=keep)


def test_columns_that_serve() -> None:
    by_name = {c.name: c for c in table().columns}
    assert set(by_name) == {"plain", "holes", "one hole", "few", "many"}
    holes, few, many = by_name["holes"], by_name["few"], by_name["many"]
    assert isinstance(holes, Numeric)
    assert isinstance(few, Categories)
    assert isinstance(many, Frequencies)
    assert holes.flagged
    assert holes.median == pytest.approx(np.nanmedian(NUMBERS["holes"]), rel=1e-6)
    assert by_name["one hole"] == Numeric(name="one hole", median=3.0)
    assert few.values == ["a", "b", "c"]
    assert len(set(many.classes.values())) > 3
    assert min(many.classes.values()) >= 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty", "97% of its cells are empty"), ("constant", "one value"), ("id", "an id"), ("clock", "a clock"),
        ("hour", "neighbouring rows are alike"), ("fine", "too little beside its size"), ("text", "free text"),
        ("day", "neighbouring rows"), ("shuffled days", "dates"), ("weekday", "neighbouring rows"),
        ("same", "one value"),
    ],
)  # fmt: skip
def test_columns_that_do_not_serve_say_why(name: str, why: str) -> None:
    assert why in table().unused[name]


def test_what_is_asked_for_wins() -> None:
    found = table(keep=("hour", "weekday", "id"), ignored=("plain",))
    assert {"hour", "weekday", "id"} < {c.name for c in found.columns}
    assert "plain" not in found.features()


def test_nothing_left_is_an_error_that_names_the_reasons() -> None:
    loaded = Loaded(np.zeros(N, np.int8), {"c": np.ones(N)}, {}, {}, 0, [], ["c"])
    with pytest.raises(OperatorError, match="no column can be used: c: one value"):
        choose(loaded, slice(0, N), label="y", time=None, amount=None, ignored=(), keep=())
    pair = {"a": np.where(np.arange(N) % 3 == 0, np.nan, RNG.random(N)), "a is missing": RNG.random(N)}
    with pytest.raises(OperatorError, match="two features would be called 'a is missing'"):
        choose(Loaded(np.zeros(N, np.int8), pair, {}, {}, 0, [], [*pair]), slice(0, N), label="y", time=None,
               amount=None, ignored=(), keep=())  # fmt: skip


def test_the_earliest_rows_train() -> None:
    parts = splitting.split((np.arange(1_000) % 10 == 0).astype(np.int8), "y", timed=True)
    assert [(p.start, p.stop) for p in parts] == [(0, 600), (600, 750), (750, 1_000)]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.ones(500), "column 'y' says fraud in all 500 rows"), (np.zeros(500), "says no fraud in all"),
        (np.arange(500) % 20 == 0, "500 rows with 25 frauds are too few"), (np.arange(150) % 2, "150 rows"),
        (np.arange(1_000) < 300, "held no frauds|hold 0 frauds.*sorted by its labels"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learned_from(labels: np.ndarray, why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        splitting.split(labels.astype(np.int8), "y", timed=False)


@given(st.integers(300, 60_000), st.floats(0.01, 0.5), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_reference_rows_are_held_out_where_there_are_enough(rows: int, rate: float, seed: int) -> None:
    labels = (np.random.default_rng(seed).random(rows) < rate).astype(np.int8)
    held = slice(int(0.75 * rows), rows)
    kept = splitting.reference_rows(labels, held, seed)
    inside = labels[held]
    enough = len(inside) >= splitting.KEPT_ROWS and min(inside.sum(), (1 - inside).sum()) >= splitting.KEPT_CLASS
    assert enough == (kept.min() >= held.start) or len(kept) == rows
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= splitting.KEPT_MAX or labels[kept].sum() <= splitting.KEPT_CLASS + 1
    if len(kept) == splitting.KEPT_MAX:
        assert labels[kept].mean() == pytest.approx(labels[kept.min() :].mean(), abs=0.002)


@given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=200), st.floats(0.1, 50), st.floats(1, 999))
def test_the_flag_threshold_is_the_stricter_of_costs_and_budget(p: list[float], missed: float, budget: float) -> None:
    costs, rows = Costs(false_alarm=1.0, missed_fraud=missed), np.array(p)
    by_cost = flag_threshold(costs, rows, None)
    assert by_cost == pytest.approx(1 / (1 + missed))
    alerts = int(len(p) * budget / 1_000)
    if alerts < 1:
        with pytest.raises(OperatorError, match="--alerts-per-1000"):
            flag_threshold(costs, rows, budget)
        return
    found = flag_threshold(costs, rows, budget)
    assert found >= by_cost
    assert (rows > found).sum() <= alerts
    if found > by_cost:  # no lower one would do, up to ties
        assert (rows >= found).sum() > alerts


def test_judging_counts_amounts_and_the_riskiest_rows() -> None:
    p, y = np.array([0.9, 0.8, 0.4, 0.3, 0.1]), np.array([1, 0, 1, 0, 0], np.int8)
    found = judge(p, y, np.full(5, 10.0), flag=0.5, costs=Costs(false_alarm=2, missed_fraud=10), alerts_per_1000=None)
    assert (found.cost, found.cost_of_none) == ((10 + 2) / 5, 20 / 5)
    assert (found.alerts, found.precision_at, found.recall_at) == (2, 0.5, 0.5)
    assert (found.scores.accuracy, found.flagged) == (0.6, 0.4)
    tight = judge(p, y, np.full(5, 10.0), flag=0.5, costs=Costs(), alerts_per_1000=200)
    assert (tight.alerts, tight.precision_at, tight.recall_at) == (1, 1.0, 0.5)
