"""Named drifts: the published experiment's, and the gauntlet S0..S15 (10 clean batches, then drift). With t3 behind
its name, each on heavy tails."""

from __future__ import annotations

from dataclasses import dataclass, replace

from producer.drift import (
    Adapt,
    Correlation,
    Mechanism,
    Outage,
    Prior,
    Profile,
    Scale,
    Shift,
    Step,
    Swap,
    Unit,
)
from producer.generator import REFERENCE, THREE, Generator
from producer.heavy import HeavyTails
from shared.errors import OperatorError

CLEAN = 10
STRENGTH = 2.2
HEAVY = "t3"  # Student's t with 3 degrees of freedom
_AFTER = Profile(first=CLEAN + 1)


@dataclass(frozen=True)
class Scenario:
    """generator: what the bundle must have been trained on. exact: each batch has exactly its share of frauds."""

    name: str
    description: str
    steps: tuple[Step, ...]
    generator: Generator = REFERENCE
    exact: bool = False


def reference(strength: float = STRENGTH) -> Scenario:
    """The published drift: from the first batch on normals lie `strength` lower on V14; fraud stays."""
    text = f"the published experiment: V14 of normals -{strength:g} from the first batch on"
    return Scenario("reference", text, (Shift("V14", -strength, "normal"),), exact=True)


_ALL = (
    reference(),
    Scenario("S0", "no drift", ()),
    Scenario("S1", "V14 of both classes -2.2, sudden", (Shift("V14", -2.2, profile=_AFTER),)),
    Scenario("S2", "as S1, linear over 30 batches", (Shift("V14", -2.2, profile=Profile(CLEAN + 1, over=30)),)),
    Scenario("S3", "as S1, on and off every 10 batches", (Shift("V14", -2.2, profile=Profile(CLEAN + 1, every=10)),)),
    Scenario("S4", "V14 scaled by 1.6", (Scale("V14", 1.6, profile=_AFTER),)),
    Scenario(
        "S5", "V14 and the noise feature V9 in other units, times 10", (Unit("V14", 10, _AFTER), Unit("V9", 10, _AFTER))
    ),
    Scenario(
        "S6",
        "three informative features shift (a second generator: needs a bundle trained on it)",
        (Shift("V14", -2.2, profile=_AFTER), Shift("V10", 1.3, profile=_AFTER), Shift("V12", 1.3, profile=_AFTER)),
        THREE,
    ),
    Scenario("S7", "fraud rate 15% to 40%", (Prior(0.40, _AFTER),)),
    Scenario(
        "S8",
        "V14 of both classes -2.2 and fraud rate 30%",
        (Shift("V14", -2.2, profile=_AFTER), Prior(0.30, _AFTER)),
    ),
    Scenario("S9", "new mechanism: fraud leaves V14, shows as mean +3 on V10", (Mechanism("V14", "V10", 3.0, _AFTER),)),
    Scenario("S10", "outage: V14 is always 0", (Outage("V14", 0.0, _AFTER),)),
    Scenario("S11", "as S1, -3.5", (Shift("V14", -3.5, profile=_AFTER),)),
    Scenario("S12", "only normals move: V14 -2.2", (Shift("V14", -2.2, "normal", _AFTER),)),
    Scenario("S13", "noise features become correlated, 0.8 (harmless)", (Correlation(0.8, _AFTER),)),
    Scenario("S14", "fraudsters adapt: mean of fraud on V14 from -2.5 to -1.0", (Adapt("V14", -1.0, _AFTER),)),
    Scenario(
        "S15",
        "four columns arrive in another order: V14, V10, V8 and V16, each where the one before it was",
        (Swap("V14", "V10", _AFTER), Swap("V10", "V8", _AFTER), Swap("V8", "V16", _AFTER)),
    ),
)
SCENARIOS: dict[str, Scenario] = {s.name: s for s in _ALL}


def find(name: str, strength: float | None = None) -> Scenario:
    """A scenario by name (any case); with t3 behind it, on heavy tails. strength: of `reference` only. Raises
    OperatorError, which lists the names."""
    if name.lower().endswith(HEAVY):
        return on_heavy_tails(find(name[: -len(HEAVY)], strength))
    found = SCENARIOS.get(name.upper()) or SCENARIOS.get(name.lower())
    if found is None:
        names = ", ".join(SCENARIOS)
        raise OperatorError(f"no scenario {name!r}; there are {names}, each also with {HEAVY} behind it: heavy tails")
    if strength is None:
        return found
    if found.name != "reference":
        raise OperatorError(f"scenario {found.name} has a fixed strength; only `reference` takes one")
    return reference(strength)


def on_heavy_tails(scenario: Scenario) -> Scenario:
    """The same drift on Student's t features, with log-normal amounts; the bundle must have been trained on those."""
    g = scenario.generator
    heavy = HeavyTails(g.features, g.informative, g.fraud_rate, g.correlation)
    return replace(scenario, name=scenario.name + HEAVY, generator=heavy)
