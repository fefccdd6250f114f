"""threshold_config.json: what counts as drift and decay, tuned by whoever owns the risk without touching code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.errors import OperatorError


def _whole(value: object) -> object:
    """5.0 for 5: the control record, and what is exported of it, knows one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class Thresholds(BaseModel):
    """The published file's keys; what a file leaves out keeps the value here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rollback_f1_drop: float = Field(
        default=0.08, ge=0, le=1, description="mean F1 this far below the first heal's: roll back"
    )
    rollback_acc_drop: float = Field(default=0.10, ge=0, le=1, description="the same for accuracy")
    health_window: Whole = Field(
        default=5, ge=3, le=1_000, description="newest scores that the two means are taken over"
    )
    fidi_threshold: float = Field(default=1.0, gt=0, description="z of the watched feature above which it drifts")
    conflict_min: Whole = Field(default=5, ge=1, description="conflicts in a batch that ask for a heal")
    heal_steps: Whole = Field(default=5, ge=1, le=1_000, description="optimiser steps of a heal")
    heal_lr: float = Field(default=0.003, gt=0, le=1, description="learning rate of a heal")

    def values(self) -> dict[str, float]:
        """As the control record carries them."""
        return {k: float(v) for k, v in self.model_dump().items()}


def read_thresholds(path: Path | None) -> Thresholds:
    """The file's values over the defaults; None: the defaults. Raises OperatorError, all faults at once."""
    if path is None:
        return Thresholds()
    try:
        return Thresholds.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise OperatorError(f"--thresholds {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        lines = [_fault(e["type"], ".".join(map(str, e["loc"])), e["msg"], e.get("input")) for e in exc.errors()]
        known = ", ".join(Thresholds.model_fields)
        raise OperatorError(f"--thresholds {path} cannot be used:\n" + "\n".join(lines) + f"\nknown: {known}") from exc


def _fault(kind: str, where: str, message: str, given: object) -> str:
    if kind == "extra_forbidden":
        return f"  {where}: no such threshold"
    return f"  {where}: {message} (got {given!r})" if where else f"  {message}"
