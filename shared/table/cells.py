"""What one cell of a table says. Hostile until checked: anything may stand in it."""

from __future__ import annotations

import re

import numpy as np

from shared.errors import Refused

NOTHING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-", "--", "."})
TRUE, FALSE = frozenset({"1", "true", "yes", "t", "y"}), frozenset({"0", "false", "no", "f", "n"})
FLOAT32_MAX = float(np.finfo(np.float32).max)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


def missing(cell: str) -> bool:
    """Is it empty, or a word for that?"""
    return cell.strip().lower() in NOTHING


def number(cell: str, name: str, *, decimal_comma: bool = False) -> float:
    """A finite number of single precision. name: the column, for the message. Raises Refused."""
    text = cell.strip()
    if decimal_comma and _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        raise Refused(f"{cell[:40]!r} is not a number", name) from None
    if not abs(value) <= FLOAT32_MAX:  # NaN fails too
        raise Refused(f"{cell[:40]!r} is not a finite number of single precision", name)
    return value


def looks_numeric(cell: str, *, decimal_comma: bool = False) -> bool:
    """Is it written as a number, however large? `inf` and 1_000 are not."""
    text = cell.strip()
    return bool(_NUMBER.fullmatch(text) or (decimal_comma and _COMMA.fullmatch(text)))


def label(cell: str, name: str) -> int:
    """1 for fraud, 0 for not: 0/1, true/false, yes/no, in any case. Raises Refused."""
    text = cell.strip().lower()
    if text in TRUE:
        return 1
    if text in FALSE:
        return 0
    value = number(cell, name)
    if value not in (0, 1):
        raise Refused(f"{cell[:40]!r} is neither 0 nor 1", name)
    return int(value)
