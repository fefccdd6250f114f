"""Names the rule of the auditor that each planted fault must turn red."""

from __future__ import annotations

from collections.abc import Callable

from audit_kit import Pipe

Plant = Callable[[Pipe], None]
Plants = dict[str, tuple[str, Plant]]


def planting(plants: Plants) -> Callable[[str], Callable[[Plant], Plant]]:
    """A decorator, given the rule, that keeps the fault in plants."""

    def plant(rule: str) -> Callable[[Plant], Plant]:
        def keep(fault: Plant) -> Plant:
            plants[fault.__name__] = rule, fault
            return fault

        return keep

    return plant
