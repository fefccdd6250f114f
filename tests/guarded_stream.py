"""Policy guarded folded by hand: batches, labels, and the healer's answers as a test wants them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from drifting import V14, batches, moved, profile
from monitor_kit import AT, Run, event, labels, prediction, setup

from monitor.decide import fold
from monitor.fidi import Calibration
from monitor.setup import Guarding, Setup
from shared.alignment import Floats
from shared.settings import MonitorSettings

P = profile()
NAMES = [f"V{i}" for i in range(P.d)]
FRAUD, NORMAL = 0.9, 0.05  # probabilities of a network that says yes and no


@functools.cache
def guarding() -> Guarding:
    return Guarding.over(P, MonitorSettings(policy="guarded"))


def guarded() -> Setup:
    return setup(
        policy="guarded", guarding=guarding(),
        calibration=Calibration(NAMES, V14, [0.0] * P.d, [1.0] * P.d),
    )  # fmt: skip


class Stream(Run):
    """Batches of policy guarded, and the healer's answers by hand."""

    def __init__(self) -> None:
        super().__init__(guarded())
        self.k = 0

    def batch(
        self, x: Floats | None, *, rows: int = 100, served: Sequence[float] | None = None,
        frozen: Sequence[float] | None = None, candidate: Sequence[float] | None = None,
    ) -> str:  # fmt: skip
        """x: the rows, None where they are gone. Returns the batch's id."""
        self.k += 1
        n = rows if x is None else len(x)
        served = [NORMAL] * n if served is None else served
        wrong = {} if candidate is None else {"candidate_probability": list(candidate)}
        record = prediction(
            f"b{self.k}", served, k=self.k, shadow=frozen, version=self.state.core.active, features=P.d, lockstep=True,
            wrong=wrong,
        )  # fmt: skip
        self.all += fold(self.state, self.setup, record, AT, None if x is None else x.astype(np.float32))
        return f"b{self.k}"

    def batches(self, blocks: Sequence[Floats]) -> None:
        for x in blocks:
            self.batch(x)

    def found(self, *, promote: bool = True, verdict: str = "shift", amount: float = -2.2, **more: Any) -> None:
        """The healer's answer to the newest request: V14 moved by this much."""
        shift = [0.0] * P.d
        shift[V14] = amount
        facts = {
            "request_id": self.request().request_id, "verdict": verdict, "n_blocks": 2, "promote": promote,
            "active_fits": False, "fraud_rate": P.fraud_rate, "shift": shift, "scale": [1.0] * P.d,
            "flagged_before": 0.6, "flagged_after": 0.14,
        }  # fmt: skip
        if promote:
            facts["post_version"] = f"v{self.k}"
        self(event("heal-finished" if promote else "diagnosed", **{**facts, **more}))

    def healed(self, amount: float = -2.2) -> str:
        """Drift, a request, and its repair in force: the version."""
        self.batches(moved(batches(self.k + 1, 2), amount))
        self.found(amount=amount)
        assert self.state.core.active == f"v{self.k}"
        return self.state.core.active

    def taught(self, won: int = 0, lost: int = 0, **more: Any) -> None:
        """The healer's lesson to the newest request; won, lost: normal rows."""
        facts = {
            "request_id": self.request().request_id, "purpose": "learn", "post_version": f"v{100 + self.k}",
            "tally": {"won_fraud": 0, "lost_fraud": 0, "won_normal": won, "lost_normal": lost},
            "fresh_labelled": 500, "log_loss_base": 20.0, "log_loss_active": 30.0,
        }  # fmt: skip
        self(event("heal-finished", **{**facts, **more}))

    def label(self, name: str, y: Sequence[int], kind: str = "delayed", of: Sequence[int] | None = None) -> None:
        at = range(len(y)) if of is None else of
        record = labels(name, [y[i] for i in at], of=[f"{name}-{i}" for i in at], offset=1000 + self.k)
        value = (record.value or b"").replace(b'"delayed"', f'"{kind}"'.encode())
        self(record._replace(value=value))

    def message(self, kind: str) -> str:
        """Of the newest event of the kind."""
        found: str = [e.message for e in self.of("events") if e.kind == kind][-1]
        return found

    def control(self, which: str) -> list[str | None]:
        return [c.version for c in self.of("control") if c.setting == which]
