"""How the columns of a table become features: what a bundle keeps of the table it was trained on.

A numeric column is one feature in its own unit, and where cells were missing a second one that says so. A column of
few categories is one 0/1 feature per category and one for all others. A column of many is one number, how common the
category was in training, in steps of a factor of two.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MISSING = "missing"  # the category of an empty cell
OTHER = "other"  # all categories that training did not see, or saw rarely
COMMONEST = 12  # class of a category that nearly every row has; each class below is half as common, 0 is unknown
Name = Annotated[str, msgspec.Meta(min_length=1)]
Commonness = Annotated[int, msgspec.Meta(ge=0, le=COMMONEST)]


class Numeric(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="numeric"):
    """median: of the training rows, in the column's unit; stands in for a missing cell. flagged: a second feature
    is 1 where the cell was missing."""

    name: Name
    median: float
    flagged: bool = False

    def features(self) -> list[str]:
        """Names of its features, in order."""
        return [self.name, missing_flag(self.name)] if self.flagged else [self.name]


class Categories(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="categories"):
    """values: the categories that have a feature of their own."""

    name: Name
    values: list[str]

    def features(self) -> list[str]:
        """Names of its features, in order; the one for all other categories comes last."""
        return [category(self.name, v) for v in [*self.values, OTHER]]


class Frequencies(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="frequencies"):
    """classes: category to how common it was, 1..12 (see commonness); any other category is 0."""

    name: Name
    classes: dict[str, Commonness]

    def features(self) -> list[str]:
        """The name of its one feature."""
        return [f"how common {self.name}"]


Column = Numeric | Categories | Frequencies


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """columns: in the order of the features that they make. label, amount, time: columns with these roles. unused:
    column to the reason why it is no feature."""

    columns: Annotated[list[Column], msgspec.Meta(min_length=1)]
    label: Name
    amount: str | None = None
    time: str | None = None
    unused: dict[str, str] = {}

    def features(self) -> list[str]:
        """Names of all features, in the order of the wire."""
        return [name for column in self.columns for name in column.features()]


def category(column: str, value: str) -> str:
    """The name of the 0/1 feature of one category."""
    return f"{column}={value}"


def missing_flag(column: str) -> str:
    """The name of the 0/1 feature that says a number was missing."""
    return f"{column} is {MISSING}"
