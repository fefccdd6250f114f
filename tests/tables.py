"""Two tables as they come from a bank and an insurer: skewed, discrete, categorical, with holes. Seeded."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

Rows = list[dict[str, str]]
COUNTRIES = np.array(["US", "DE", "FR", "GB", "NG", "IS"])


def cards(seed: int, n: int = 12_000, fraud: float = 0.02, start: int = 0) -> Rows:
    """Card payments in time order. Frauds: larger amounts, more payments an hour, newer accounts, other countries."""
    rng = np.random.default_rng([seed, 1])
    y = rng.random(n) < fraud
    amount = np.exp(rng.normal(np.where(y, 4.9, 3.3), np.where(y, 0.8, 1.1)))
    hourly = rng.poisson(np.where(y, 4.0, 0.8))
    age = np.exp(rng.normal(np.where(y, 4.0, 6.2), 1.0))
    spread = rng.standard_t(3, n) + np.where(y, 1.5, 0.0)
    laws = np.array([[0.5, 0.2, 0.15, 0.1, 0.045, 0.005], [0.25, 0.1, 0.1, 0.15, 0.4, 0.0]])
    country = [COUNTRIES[rng.choice(6, p=laws[int(f)])] for f in y]
    shop = rng.zipf(1.4, n) % 400
    hole = rng.random(n) < np.where(y, 0.15, 0.06)
    day = datetime(2026, 1, 1)  # noqa: DTZ001 - tables of other systems often say no zone; the loader must take it
    return [
        {
            "id": str(10_000 + start + i), "when": (day + timedelta(seconds=40 * (start + i))).isoformat(" "),
            "amount": f"{amount[i]:.2f}", "hourly": str(hourly[i]), "age_days": "" if hole[i] else f"{age[i]:.1f}",
            "spread": f"{spread[i]:.4f}", "country": str(country[i]), "shop": f"shop {shop[i]}",
            "currency": "EUR", "note": f"payment {rng.integers(10**9)}", "weekday": "MTWTFSS"[i // 150 % 7],
            "Class": str(int(y[i])),
        }
        for i in range(n)
    ]  # fmt: skip


def claims(seed: int, n: int = 9_000, fraud: float = 0.06) -> Rows:
    """Insurance claims, in no order. Heavy tails, yes and no, few values, a time to sort by."""
    rng = np.random.default_rng([seed, 2])
    y = rng.random(n) < fraud
    sum_ = 50 * np.exp(1.2 * rng.standard_t(5, n) * 0.7 + np.where(y, 1.6, 0.0))
    delay = rng.geometric(np.where(y, 0.08, 0.3))
    score = rng.standard_t(3, n) * 2 + np.where(y, -3.0, 10.0)
    witness = np.where(rng.random(n) < np.where(y, 0.2, 0.7), "yes", "no")
    kind = rng.choice(["car", "home", "travel"], n, p=[0.6, 0.3, 0.1])
    when = rng.permutation(n)
    return [
        {
            "claim": f"C{when[i]:06d}", "sum": f"{sum_[i]:.2f}", "delay": str(delay[i]), "score": f"{score[i]:.3f}",
            "witness": str(witness[i]), "kind": str(kind[i]), "flat": "7", "stamp": str(1_700_000_000 + 60 * when[i]),
            "fraud": "true" if y[i] else "false",
        }
        for i in range(n)
    ]  # fmt: skip


def write(path: Path, rows: Rows, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """Rows as a CSV file with a header."""
    with path.open("w", newline="", encoding=encoding) as f:
        out = csv.DictWriter(f, list(rows[0]), delimiter=delimiter)
        out.writeheader()
        out.writerows(rows)
    return path
