"""What each kind of act does, step by step; many are under way at a time, one for each victim."""

from __future__ import annotations

from collections.abc import Callable

from selfheal.chaos import broker_acts, double_acts, service_acts
from selfheal.chaos.plan import Act, Kind
from selfheal.chaos.steps import Step
from selfheal.chaos.world import World

ACTS: dict[Kind, Callable[[World, Act], Step]] = {
    "kill": service_acts.kill, "crash": service_acts.crash, "term": service_acts.term, "pause": service_acts.pause,
    "zombie": double_acts.zombie, "double": double_acts.double,
    "broker-restart": broker_acts.broker_restart, "broker-kill": broker_acts.broker_kill,
    "node-kill": broker_acts.node_kill, "leader-kill": broker_acts.leader_kill, "disk-full": broker_acts.disk_full,
    "grow": broker_acts.grow,
}  # fmt: skip
