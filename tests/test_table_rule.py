"""The rule text: one comparison, on the wire as it was meant; all else is an error that shows the way out."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from selfheal.table.rule import parse, resolve
from shared.bundle import Rule
from shared.errors import OperatorError
from shared.table.schema import Categories, Frequencies, Numeric, Table

TABLE = Table(
    columns=[
        Numeric(name="V14", median=0.0), Numeric(name="Amount EUR", median=1.0),
        Categories(name="country", values=["DE", "New York", "missing"]), Frequencies(name="shop", classes={"a": 3}),
    ],
    label="y", unused={"id": "an id"},
)  # fmt: skip
MEANT = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def fires(rule: Rule, value: float) -> bool:
    """As Bundle.rule_says_fraud compares: in single precision."""
    x = np.array([value], np.float32)
    return bool((x < rule.threshold if rule.op == "<" else x > rule.threshold)[0])


@given(st.sampled_from(sorted(MEANT)), SINGLE, SINGLE, st.sampled_from(["", " ", "  "]))
def test_a_comparison_means_on_the_wire_what_it_says(op: str, threshold: float, value: float, blank: str) -> None:
    assume(abs(threshold) < 1e38)
    rule = resolve(f"V14{blank}{op}{blank}{threshold!r}", TABLE)
    assert rule.feature == "V14"
    for x in (value, threshold):
        assert fires(rule, x) == MEANT[op](x, threshold)


@given(
    st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), min_size=1), st.sampled_from(["=", "!="])
)
def test_whatever_is_quoted_is_taken_as_it_is(name: str, op: str) -> None:
    assert parse(f'"{name}" {op} "x"') == (name, op, "x")


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_an_operators_error(text: str) -> None:
    told: str | None = None
    try:
        found = parse(text)
    except OperatorError as exc:
        told = str(exc)
    else:
        assert found.op in ("<", "<=", ">", ">=", "=", "!=")
    assert told is None or "A rule is COLUMN < NUMBER" in told


@pytest.mark.parametrize(
    ("text", "feature", "op"),
    [
        ("country = DE", "country=DE", ">"), ("country=='New York'", "country=New York", ">"),
        ("`country` != 'other'", "country=other", "<"), ("country = missing", "country=missing", ">"),
        ("Amount EUR > 900", "Amount EUR", ">"), ('"Amount EUR">9e2', "Amount EUR", ">"),
    ],
)  # fmt: skip
def test_names_categories_and_quotes(text: str, feature: str, op: str) -> None:
    rule = resolve(text, TABLE)
    assert (rule.feature, rule.op) == (feature, op)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no comparison"), ("V14", "no comparison"), ("< 3", "names no column"), ("V14 <", "nothing after '<'"),
        ("V14 < < 3", "'<' is no value"), ("V14 < 3 4", "'4' follows"),
        ("V14 < 1 and country = DE", "'and country = DE' follows"), ("V14 <= 3.4028234663852886e38", "lies beyond"),
        ("V15 < 1", "no column 'V15'; there are V14, Amount EUR"),
        ("id > 3", "column 'id' is not used: an id"), ("V14 = 3", "holds numbers: compare with <, <=, >, >="),
        ("V14 < many", "'many' is not a number"), ("V14 < 1e99", "not a finite number"),
        ("country < DE", "holds categories: compare with = or !="), ("country = XX", "no category 'XX' of its own"),
        ("shop = a", "too many categories"), ("V14 < 'x", "quote left open"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_rule_is_told_why(text: str, why: str) -> None:
    with pytest.raises(OperatorError) as refused:
        resolve(text, TABLE)
    assert why in str(refused.value)
    assert str(refused.value).startswith(f"--rule {text}:")
