"""Which columns of a table can be features, and how; which cannot, and why. Learned from the training rows alone."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from selfheal.table.loading import LONGEST, TOO_LONG, Codes, Loaded, is_date
from shared.alignment import Floats
from shared.bundle import Array
from shared.errors import OperatorError
from shared.table.encoding import commonness, encoded
from shared.table.schema import MISSING, OTHER, Categories, Column, Frequencies, Numeric, Table

RARE = 10  # rows: a category seen less often joins the others
OWN = 20  # so many categories have a feature of their own; of more, only how common each is
KNOWN, CLASSES_MAX = 5, 10_000  # of such: rows from which a category is known at all, and how many of them
FLAGGED = 0.01  # share of cells missing from which "it is missing" is a feature
EMPTY = 0.95
UNIQUE = 0.5  # distinct categories a row from which they are ids or free text
IDS_FROM = 200  # rows from which whole numbers that never repeat are ids
CLOCK = 0.999  # share of steps that do not fall
ALIKE = 0.3  # correlation of neighbouring rows from which a column goes by the clock
BY_THE_CLOCK = (
    "neighbouring rows are alike, as with an hour or a weekday: every window would look drifted; --keep uses it"
)
FINE = 1e5  # a column's size over its spread, beyond which single precision loses it
FEATURES_MAX = 2_000


def choose(
    loaded: Loaded,
    train: slice,
    *,
    label: str,
    time: str | None,
    amount: str | None,
    ignored: Collection[str],
    keep: Collection[str],
) -> Table:
    """The schema, learned from the rows of `train`. keep: columns to use although they are ids or go by the clock.

    Raises OperatorError where no column can be used, or two features would have one name.
    """
    columns: list[Column] = []
    unused = dict(loaded.unnamed) | dict.fromkeys(ignored, "--ignore names it")
    if time is not None:
        unused[time] = "--time names it: it orders the rows"
    for name in (n for n in loaded.order if n not in ignored):
        if name in loaded.numbers:
            found: Column | str = _numeric(name, loaded.numbers[name][train], name in keep)
        else:
            found = _categories(name, loaded.codes[name], train, name in keep)
        if isinstance(found, str):
            unused[name] = found
        else:
            columns.append(found)
    if not columns:
        raise OperatorError(f"no column can be used: {'; '.join(f'{n}: {why}' for n, why in unused.items())[:1000]}")
    table = Table(columns=columns, label=label, time=time, amount=amount, unused=unused)
    features = table.features()
    if len(features) > FEATURES_MAX:
        raise OperatorError(f"{len(features)} features are more than {FEATURES_MAX}: leave columns out with --ignore")
    if twice := next((f for f in features if features.count(f) > 1), None):
        raise OperatorError(f"two features would be called {twice!r}: rename a column, or --ignore one")
    return table


def _numeric(name: str, values: Floats, keep: bool) -> Numeric | str:
    known = values[~np.isnan(values)]
    absent = 1 - len(known) / len(values)
    if absent > EMPTY:
        return f"{absent:.0%} of its cells are empty"
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    if abs(middle) > FINE * max(high - low, float(known.std())) > 0:
        return "it varies too little beside its size for single precision: subtract what is common"
    single = np.unique(known.astype(np.float32))
    if len(single) == 1:
        return "one value in all training rows"
    if not keep and (reason := _out_of_place(known, len(single))):
        return reason
    return Numeric(name=name, median=float(np.float32(middle)), flagged=absent >= FLAGGED)


def _out_of_place(known: Floats, distinct: int) -> str | None:
    """known (n,) in time order."""
    if distinct >= OWN and float((np.diff(known) >= 0).mean()) >= CLOCK:
        return "a clock or a counter: it grows from row to row, so no new row is like the old ones"
    if len(known) >= IDS_FROM and len(np.unique(known)) == len(known) and bool((known == np.round(known)).all()):
        return "an id: whole numbers, another one in every row"
    ranks = np.unique(known, return_inverse=True)[1].astype(np.float64)
    alike = float(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) if ranks[1:].std() * ranks[:-1].std() > 0 else 0.0
    return BY_THE_CLOCK if alike > ALIKE else None


def _categories(name: str, column: Codes, train: slice, keep: bool) -> Column | str:
    codes = column.codes[train]
    counts = np.bincount(codes + 1, minlength=len(column.values) + 1)  # the first one counts empty cells
    if counts[0] > EMPTY * len(codes):
        return f"{counts[0] / len(codes):.0%} of its cells are empty"
    seen = np.flatnonzero(counts)
    if len(seen) == 1:
        return "one value in all training rows"
    names = np.array([MISSING, *column.values], dtype=object)
    shares = counts / len(codes)
    alone = float((shares**2).sum())  # probability that two rows picked at random agree
    if not keep and float((codes[1:] == codes[:-1]).mean()) - alone > ALIKE * (1 - alone):
        return BY_THE_CLOCK
    texts = [str(v) for v in names[seen[seen > 0]][:1_000]]
    if np.mean([is_date(v) for v in texts]) > EMPTY:
        return (
            "dates: the same day never comes again; give it as --time, or put what matters (hour, weekday) in columns"
        )
    if len(seen) > max(UNIQUE * len(codes), OWN):
        return "ids or free text: nearly every row has another value"
    # Most common first; of equals, in the order of the file.
    ranked = [int(i) for i in seen[np.argsort(-counts[seen], kind="stable")] if _short(str(names[i]))]
    common = [i for i in ranked if counts[i] >= RARE and names[i] != OTHER]
    if len(ranked) <= OWN or counts[common[:OWN]].sum() >= (1 - FLAGGED) * len(codes):
        if not common:
            return f"no category has {RARE} training rows"
        return Categories(name=name, values=sorted({str(names[i]) for i in common[:OWN]}))
    classes = {
        str(names[i]): commonness(float(shares[i])) for i in reversed(ranked[:CLASSES_MAX]) if counts[i] >= KNOWN
    }
    if not classes:
        return f"no category has {KNOWN} training rows"
    return Frequencies(name=name, classes=dict(sorted(classes.items())))


def _short(value: str) -> bool:
    return value != TOO_LONG and len(value) <= LONGEST


def matrix(loaded: Loaded, table: Table) -> Array:
    """All rows (n, d) float32, as shared.table.encoding makes them one by one."""
    blocks: list[npt.NDArray[np.float64]] = []
    for column in table.columns:
        if isinstance(column, Numeric):
            values = loaded.numbers[column.name]
            absent = np.isnan(values)
            blocks.append(np.where(absent, column.median, values)[:, None])
            if column.flagged:
                blocks.append(absent.astype(np.float64)[:, None])
            continue
        held = loaded.codes[column.name]
        by_code = np.array([encoded(column, value)[0] for value in (MISSING, *held.values)])
        blocks.append(by_code[held.codes + 1])
    return np.ascontiguousarray(np.concatenate(blocks, axis=1), np.float32)
