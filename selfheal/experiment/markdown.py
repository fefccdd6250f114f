"""Pieces of the report: numbers, paragraphs, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def number(value: Any, digits: int = 3) -> str:
    """One seed: the number. Several: median [5%, 95%]."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{value['median']:.{digits}f} [{value['p05']:.{digits}f}, {value['p95']:.{digits}f}]"
    return f"{value:.{digits}f}"


def middle(value: Any) -> float:
    """The number, or the median."""
    return float(value["median"] if isinstance(value, dict) else value)


def paragraph(text: str) -> list[str]:
    """Its words on one line, and an empty line after it."""
    return [" ".join(text.split()), ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 0) -> list[str]:
    """The first column to the left, and the last `words`; the others to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1 - words)}{'---|' * words}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
