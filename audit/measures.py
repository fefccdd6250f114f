"""Rule `metrics`, the numbers: what a batch's row must say, from its prediction and its labels."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from audit.network import Bundle, Floats

CLOSE = 1e-9
SCORES = (
    "accuracy_shadow", "precision_shadow", "recall_shadow", "f1_shadow",
    "accuracy_healed", "precision_healed", "recall_healed", "f1_healed",
    "acc_lift", "f1_lift", "cost_healed", "cost_shadow",
)  # fmt: skip
POST_HEAL = {
    "accuracy_post_heal": "accuracy_after", "f1_post_heal": "f1_after", "loss_total": "loss_total",
    "loss_label": "loss_label", "loss_rule": "loss_rule", "loss_entropy": "loss_entropy",
}  # fmt: skip
FIDI_FIRST, FIDI_WINDOW = 3, 10
PARTITION_ORDERS = 24  # most orders of partitions tried, where labels of one batch lie in several

Given = tuple[int, Sequence[str], Sequence[int]]  # partition, ids, labels of one labels record


class Expected(NamedTuple):
    """Of one prediction. options: the SCORES after each labels record that left no transaction without a label.
    counts: transactions with a label, after each record. mean: of the watched feature."""

    where: str
    partition: int
    offset: int
    source: tuple[str, int, int]
    rows: int
    conflicts: int
    flagged: int
    created_at: str
    version: str
    lockstep: bool
    at_ms: int
    mean: float
    counts: frozenset[int]
    options: tuple[tuple[float, ...], ...]


def expected(
    where: tuple[str, int, int],
    body: dict[str, Any],
    lockstep: bool,
    at_ms: int,
    given: Sequence[Given],
    bundle: Bundle,
) -> Expected:
    """given: the labels records of the batch, by partition and offset."""
    source = (body["source"]["topic"], body["source"]["partition"], body["source"]["offset"])
    p, q = (np.array(body[name], np.float32).astype(np.float64) for name in ("probability", "shadow_probability"))
    watched = bundle.manifest["features"].index(bundle.manifest["watched"])
    counts, options = {0}, dict[tuple[float, ...], None]()
    for order in _orders(given):
        _follow(body["transaction_ids"], order, counts, options, p, q, bundle)
    n = len(p)
    return Expected(
        *where, source, n, body["conflicts"], sum(body["flag"]), body["created_at"], body["adapter_version"], lockstep,
        at_ms, body["feature_sums"][watched] / n, frozenset(counts), tuple(options),
    )  # fmt: skip


def _orders(given: Sequence[Given]) -> list[list[Given]]:
    """As offsets say; over several partitions nobody knows, so a few orders of these."""
    by_partition = {p: [g for g in given if g[0] == p] for p in sorted({g[0] for g in given})}
    orders = itertools.islice(itertools.permutations(by_partition.values()), PARTITION_ORDERS)
    return [[g for part in order for g in part] for order in orders]


def _follow(
    ids: list[str], given: list[Given], counts: set[int], options: dict[tuple[float, ...], None], p: Floats, q: Floats,
    bundle: Bundle,
) -> None:  # fmt: skip
    where = {name: i for i, name in enumerate(ids)}
    known = np.full(len(ids), -1)
    for _, names, labels in given:
        if names == ids:
            known[:] = labels
        else:
            for name, label in zip(names, labels, strict=True):
                if (i := where.get(name)) is not None:
                    known[i] = label
        counts.add(int((known >= 0).sum()))
        if (known >= 0).all():
            options[_scores(p, q, known == 1, bundle)] = None


def _scores(p: Floats, q: Floats, fraud: npt.NDArray[np.bool_], bundle: Bundle) -> tuple[float, ...]:
    """SCORES, in that order."""
    flag, costs = bundle.manifest["thresholds"]["flag"], bundle.manifest["costs"]
    shadow, healed = _confusion(q > flag, fraud), _confusion(p > flag, fraud)
    dear = costs["false_alarm"] / (costs["false_alarm"] + costs["missed_fraud"])

    def cost(of: Floats) -> float:
        flagged = of > dear
        wrong = (flagged & ~fraud).sum() * costs["false_alarm"] + (~flagged & fraud).sum() * costs["missed_fraud"]
        return float(wrong / len(of))

    lift, f1_lift = healed[0] - shadow[0], healed[3] - shadow[3]
    return (*shadow, *healed, lift, f1_lift, cost(p), cost(q))


def _confusion(flag: npt.NDArray[np.bool_], fraud: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Accuracy, precision, recall, F1; 0 where a ratio is undefined."""
    hit, false, missed = (int(x.sum()) for x in (flag & fraud, flag & ~fraud, ~flag & fraud))
    return (
        1 - (false + missed) / len(fraud),
        hit / (hit + false) if hit + false else 0.0,
        hit / (hit + missed) if hit + missed else 0.0,
        2 * hit / (2 * hit + false + missed) if 2 * hit + false + missed else 0.0,
    )


def close(given: object, wanted: float | None) -> bool:
    """A column of a row against what it must be; None is no number."""
    if wanted is None or given is None:
        return given is None and wanted is None
    return isinstance(given, int | float) and math.isclose(given, wanted, rel_tol=CLOSE, abs_tol=CLOSE)


def row_fault(row: dict[str, Any], want: Expected, bundle: Bundle) -> str:
    """What of the row does not follow from its prediction and labels; empty where all does."""
    clean = bundle.manifest["clean"]
    fixed: dict[str, Any] = {
        "timestamp": want.created_at, "rows": want.rows, "n_conflicts": want.conflicts, "adapter_version": want.version,
    }  # fmt: skip
    for name, value in fixed.items():
        if row.get(name) != value:
            return f"{name} {row.get(name)!r}, its prediction gives {value!r}"
    numbers = {"flagged_share": want.flagged / want.rows, **{f"{k}_baseline": clean[k] for k in clean}}
    for name, value in numbers.items():
        if not close(row.get(name), value):
            return f"{name} {row.get(name)}, prediction and bundle give {value:.6g}"
    if all(row.get(name) is None for name in SCORES):
        if row.get("labelled") not in want.counts:
            return f"labelled {row.get('labelled')}, labels records give one of {sorted(want.counts)[:5]}"
        return ""
    if row.get("labelled") != want.rows:
        return f"has scores with {row.get('labelled')} of {want.rows} labels"
    nearest = ""
    for option in want.options:
        wrong = [n for n, v in zip(SCORES, option, strict=True) if not close(row.get(n), v)]
        if not wrong:
            return ""
        value = option[SCORES.index(wrong[0])]
        nearest = f"{wrong[0]} {row.get(wrong[0])}, predictions and labels give {value:.6g}"
    return nearest or "has scores, and its labels are not complete"


def z_score(means: Sequence[float], bundle: Bundle) -> float | None:
    """FIDI of the newest batch means, oldest first; None before three."""
    if len(means) < FIDI_FIRST:
        return None
    about = bundle.manifest["statistics"][bundle.manifest["watched"]]
    newest = means[-FIDI_WINDOW:]
    return abs(math.fsum(newest) / len(newest) - float(about["mean"])) / (float(about["deviation"]) or 1.0)


def post_heal_fault(row: dict[str, Any], finished: Any) -> str:
    """Columns that repeat the outcome of the row's own heal."""
    if row.get("accuracy_post_heal") is not None and row.get("acc_lift_post_heal") is not None:
        shadow = row.get("accuracy_shadow")
        if shadow is not None and not close(row["acc_lift_post_heal"], row["accuracy_post_heal"] - shadow):
            return f"acc_lift_post_heal {row['acc_lift_post_heal']} is not accuracy_post_heal - accuracy_shadow"
    elif not close(row.get("acc_lift_post_heal"), row.get("acc_lift")):
        return f"acc_lift_post_heal {row.get('acc_lift_post_heal')} without a heal, acc_lift {row.get('acc_lift')}"
    for column, fact in POST_HEAL.items():
        if (value := row.get(column)) is None:
            continue
        if finished is None:
            return f"{column} {value}, and no heal-finished for heal-{row['batch_idx']}"
        if not close(value, finished.number(fact)):
            return f"{column} {value}, its heal-finished says {finished.number(fact)}"
    return ""


def is_read(key: bytes, seed: int, share: float) -> bool:
    """The rule of thinning: protocol.md."""
    if share >= 1:
        return True
    digest = hashlib.blake2b(key, digest_size=4, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**32 < share
