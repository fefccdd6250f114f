"""Drift steps as text, for the command line: `shift:V14:-2.2:class=normal,from=11,over=30`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NoReturn

from producer.drift import (
    Adapt,
    Class,
    Correlation,
    Mechanism,
    Mimic,
    Outage,
    Prior,
    Profile,
    Scale,
    Shift,
    Step,
    Swap,
    Unit,
)  # fmt: skip
from shared.errors import OperatorError

GRAMMAR = """\
  shift:FEATURE:AMOUNT          feature + AMOUNT; class=normal|fraud|all
  scale:FEATURE:FACTOR          FACTOR times the distance from pivot=0
  unit:FEATURE:FACTOR           the feed changes its unit at once
  outage:FEATURE:VALUE          the feed sends VALUE only
  swap:FEATURE:OTHER            the feed sends the two in each other's place
  prior:RATE                    the fraud rate moves to RATE
  mechanism:FEATURE:OTHER:MEAN  fraud looks normal on FEATURE and has MEAN on OTHER
  adapt:FEATURE:MEAN            the mean of fraud on FEATURE moves to MEAN
  correlation:RHO               noise features come to depend on each other
  mimic:SHARE                   so many of the normals look like fraud
  then, after one more colon and with commas between them: from=BATCH (1), until=BATCH,
  over=BATCHES (gradual) or every=BATCHES (on and off); shift and scale take their own option as well"""

_TIMES = ("from", "until", "over", "every")
_ARGUMENTS = {
    "shift": 2, "scale": 2, "unit": 2, "outage": 2, "prior": 1, "mechanism": 3, "adapt": 2, "correlation": 1,
    "mimic": 1, "swap": 2,
}  # fmt: skip
_OWN_OPTION = {"shift": "class", "scale": "pivot"}
_AT_ONCE = ("unit", "outage", "swap")


def parse(texts: Iterable[str]) -> tuple[Step, ...]:
    """One step a text, in order. Raises OperatorError, which names the bad part and shows the grammar."""
    return tuple(_Text(text).step() for text in texts)


class _Text:
    def __init__(self, text: str) -> None:
        self._text = text
        self._kind, *parts = text.split(":")
        if self._kind not in _ARGUMENTS:
            self._fail(f"{self._kind!r} is no kind of drift")
        n = _ARGUMENTS[self._kind]
        if len(parts) < n or not all(parts[:n]):
            self._fail(f"{self._kind} needs {n} part{'s' if n > 1 else ''} after its name")
        if len(parts) > n + 1:
            self._fail(f"{':'.join(parts[n + 1 :])!r} is one part too many")
        self._parts = parts[:n]
        self._options = self._split(parts[n]) if len(parts) > n else {}

    def _fail(self, why: str) -> NoReturn:
        raise OperatorError(f"--drift {self._text}: {why}. Drift is written as\n{GRAMMAR}")

    def _split(self, text: str) -> dict[str, str]:
        known = {*_TIMES, *filter(None, [_OWN_OPTION.get(self._kind)])}
        options: dict[str, str] = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if not equals or name not in known:
                self._fail(f"{part!r} is no option of {self._kind} ({', '.join(sorted(known))})")
            if name in options:
                self._fail(f"{name} is given twice")
            options[name] = value
        return options

    def _number(self, text: str, what: str, fits: Callable[[float], bool] = math.isfinite, hint: str = "") -> float:
        try:
            number = float(text)
        except ValueError:
            self._fail(f"{what} {text!r} is not a number")
        if not (math.isfinite(number) and fits(number)):
            self._fail(f"{what} {text!r} must be {hint or 'finite'}")
        return number

    def _batches(self, name: str) -> int | None:
        text = self._options.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**9):
            self._fail(f"{name}={text}: give a whole number of batches from 1")
        return int(text)

    def _profile(self) -> Profile:
        first, over, every, until = (self._batches(n) for n in ("from", "over", "every", "until"))
        if over is not None and every is not None:
            self._fail("over (gradual) and every (on and off) do not go together")
        if over is not None and self._kind in _AT_ONCE:
            self._fail(f"{self._kind} happens at once: leave out over")
        if until is not None and until < (first or 1):
            self._fail(f"until={until} lies before its first batch {first or 1}")
        return Profile(first or 1, over or 1, every, until)

    def _class(self) -> Class:
        match self._options.get("class", "all"):
            case "all" | "normal" | "fraud" as only:
                return only
            case other:
                self._fail(f"class={other}: use all, normal or fraud")

    def step(self) -> Step:
        parts, when = self._parts, self._profile()
        match self._kind:
            case "shift":
                return Shift(parts[0], self._number(parts[1], "amount"), self._class(), when)
            case "scale":
                pivot = self._number(self._options.get("pivot", "0"), "pivot")
                return Scale(parts[0], self._factor(parts[1]), pivot, when)
            case "unit":
                return Unit(parts[0], self._factor(parts[1]), when)
            case "outage":
                return Outage(parts[0], self._number(parts[1], "value"), when)
            case "swap":
                return Swap(parts[0], parts[1], when)
            case "prior":
                return Prior(self._number(parts[0], "rate", lambda r: 0 <= r <= 1, "from 0 to 1"), when)
            case "mechanism":
                return Mechanism(parts[0], parts[1], self._number(parts[2], "mean"), when)
            case "adapt":
                return Adapt(parts[0], self._number(parts[1], "mean"), when)
            case "mimic":
                return Mimic(self._number(parts[0], "share", lambda r: 0 <= r <= 1, "from 0 to 1"), when)
            case _:
                return Correlation(self._number(parts[0], "rho", lambda r: -1 < r < 1, "between -1 and 1"), when)

    def _factor(self, text: str) -> float:
        return self._number(text, "factor", lambda f: f != 0, "other than 0")
