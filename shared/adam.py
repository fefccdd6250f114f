"""Adam on named parameters, with its state as plain arrays.

torch.optim.Adam does the same sums, but making one imports PyTorch's compiler: 900 modules, 4 s on a quiet machine
and more than 200 MB, in a process that compiles nothing. A test holds the two equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from shared.bundle import Array

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Kingma and Ba 2015, algorithm 1, in PyTorch's order of operations, so that the bits are the same.

    state: what an earlier Adam's state() gave for parameters of these names and shapes; empty: start anew.
    """

    def __init__(self, parameters: Mapping[str, Tensor], lr: float, state: Mapping[str, Array] | None = None) -> None:
        state = state or {}
        self._lr = lr
        self._steps = int(state.get("step", 0))
        self._all = {
            name: (p, _moment(state, f"exp_avg.{name}", p), _moment(state, f"exp_avg_sq.{name}", p))
            for name, p in parameters.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter along its gradient, then drop the gradients."""
        self._steps += 1
        step_size = self._lr / (1 - BETA_1**self._steps)
        correction = math.sqrt(1 - BETA_2**self._steps)
        for parameter, mean, square in self._all.values():
            gradient = parameter.grad
            if gradient is None:
                continue
            mean.lerp_(gradient, 1 - BETA_1)
            square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
            parameter.addcdiv_(mean, (square.sqrt() / correction).add_(EPSILON), value=-step_size)
            parameter.grad = None

    def state(self) -> dict[str, Array]:
        """A copy, float32: step (), and exp_avg.NAME, exp_avg_sq.NAME in the parameter's shape."""
        arrays = {"step": torch.tensor(float(self._steps))}
        for name, (_, mean, square) in self._all.items():
            arrays |= {f"exp_avg.{name}": mean, f"exp_avg_sq.{name}": square}
        return {k: v.numpy().copy() for k, v in arrays.items()}


def _moment(state: Mapping[str, Array], name: str, parameter: Tensor) -> Tensor:
    return torch.from_numpy(state[name].copy()) if name in state else torch.zeros_like(parameter)
