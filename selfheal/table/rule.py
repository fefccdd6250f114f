"""The rule of `selfheal train --rule`: one comparison of one column, as in `V14 < -1.5` or `country = 'US'`."""

from __future__ import annotations

import math
import re
from typing import NamedTuple, NoReturn

import numpy as np

from shared.errors import OperatorError, Refused
from shared.manifest import Rule
from shared.table.cells import number
from shared.table.schema import MISSING, OTHER, Categories, Frequencies, Table, category

GRAMMAR = "COLUMN < NUMBER, with <, <=, > or >=, or COLUMN = 'CATEGORY', with = or !=; quote a name with blanks"
_TOKENS = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*'|`[^`]*`)|(?P<op><=|>=|==|!=|<|>|=)|(?P<word>[^\s<>=!"'`]+)|(?P<bad>\S))"""
)
_ORDER, _EQUAL = ("<", "<=", ">", ">="), ("=", "!=")


class Comparison(NamedTuple):
    """What was written. value: a number, or the text of a category."""

    column: str
    op: str
    value: str


def parse(text: str) -> Comparison:
    """Raises OperatorError, which shows what is wrong and how a rule is written."""
    tokens = [(m.lastgroup or "", m.group(m.lastgroup or 0)) for m in _TOKENS.finditer(text.rstrip())]
    if stray := next((token for kind, token in tokens if kind == "bad"), None):
        _fail(text, f"{stray!r} has no meaning here; is a quote left open?")
    at = next((i for i, (kind, _) in enumerate(tokens) if kind == "op"), None)
    if at is None:
        _fail(text, "there is no comparison in it")
    if at == 0:
        _fail(text, "it names no column before the comparison")
    if at == len(tokens) - 1:
        _fail(text, f"there is nothing after {tokens[at][1]!r}")
    if tokens[at + 1][0] == "op":
        _fail(text, f"{tokens[at + 1][1]!r} is no value")
    if at + 2 < len(tokens):
        rest = " ".join(token for _, token in tokens[at + 2 :])
        _fail(text, f"one comparison is all it can hold, and {rest!r} follows")
    column = " ".join(_plain(*token) for token in tokens[:at])
    op = tokens[at][1]
    return Comparison(column, "=" if op == "==" else op, _plain(*tokens[at + 1]))


def resolve(text: str, table: Table) -> Rule:
    """The rule as scorers apply it: on a feature of the wire, in single precision. Raises OperatorError: no such
    column, a column that training cannot use, a value or an operator that does not fit the column."""
    said = parse(text)
    column = next((c for c in table.columns if c.name == said.column), None)
    if column is None:
        if reason := table.unused.get(said.column):
            _fail(text, f"column {said.column!r} is not used: {reason}")
        _fail(text, f"no column {said.column!r}; there are {', '.join(c.name for c in table.columns)[:300]}")
    if isinstance(column, Frequencies):
        _fail(text, f"column {column.name!r} has too many categories for a rule; use another column")
    if isinstance(column, Categories):
        known = [*column.values, OTHER]
        if said.op not in _EQUAL:
            _fail(text, f"column {column.name!r} holds categories: compare with = or !=")
        if said.value not in known:
            _fail(text, f"column {column.name!r} has no category {said.value!r} of its own; it has {', '.join(known)}")
        return Rule(feature=category(column.name, said.value), op=">" if said.op == "=" else "<", threshold=0.5)
    if said.op not in _ORDER:
        hint = f"; a missing one is its median {column.median:g}" if said.value == MISSING else ""
        _fail(text, f"column {column.name!r} holds numbers: compare with {', '.join(_ORDER)}{hint}")
    try:
        threshold = np.float32(number(said.value, column.name))
    except Refused as refused:
        _fail(text, refused.reason)
    if said.op in ("<=", ">="):  # x <= t is x < the next number of single precision
        with np.errstate(over="ignore"):
            threshold = np.nextafter(threshold, np.float32(math.inf if said.op == "<=" else -math.inf))
    if not math.isfinite(threshold):
        _fail(text, f"no number of single precision lies beyond {said.value}")
    return Rule(feature=column.name, op="<" if said.op[0] == "<" else ">", threshold=float(threshold))


def _plain(kind: str, token: str) -> str:
    return token[1:-1] if kind == "quoted" else token


def _fail(text: str, why: str) -> NoReturn:
    raise OperatorError(f"--rule {text}: {why}. A rule is {GRAMMAR}")
