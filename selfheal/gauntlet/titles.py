"""What each scenario is called where there is little room."""

from __future__ import annotations

from producer.scenarios import HEAVY
from selfheal.gauntlet.world import variant

TITLES = {
    "S0": "no drift", "S1": "a field shifts", "S2": "a field shifts slowly", "S3": "a shift on and off",
    "S4": "a field is stretched", "S5": "two fields in other units", "S6": "three fields shift",
    "S7": "fraud rate 15% to 40%", "S8": "shift and fraud rate", "S9": "a new kind of fraud",
    "S10": "a field goes dark", "S11": "a field shifts far", "S12": "only normals move", "S13": "noise hangs together",
    "S14": "fraudsters adapt", "S15": "columns swapped",
}  # fmt: skip


def titled(name: str) -> str:
    """A variant's name and, in a few words, its drift; its description where it has no title here."""
    found = variant(name)
    title = TITLES.get(found.plain, found.scene.description)
    more = (", labels" if found.labelled else "") + (", heavy tails" if found.scene.name.endswith(HEAVY) else "")
    return f"{name} {title}{more}"
