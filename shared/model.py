"""The network in PyTorch, for training and healing: SelfHealingMLP, 13,250 parameters at 10 features and 64 hidden."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from shared.adapters import Adapter
from shared.bundle import Array, Bundle, reflex_shapes


class ReflexiveLayer(nn.Module):
    """The adapter: x + scale * (Linear, Tanh, Linear)(x). The last Linear starts at zero, so that an unhealed
    adapter is the identity and the shadow is the same network without it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        first, last = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(first, nn.Tanh(), last)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def start_anywhere(self) -> None:
        """At random, to be trained together with the rest."""
        for part in self.net:
            if isinstance(part, nn.Linear):
                part.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:  # (n, h) -> (n, h)
        healed: Tensor = x + self.scale * self.net(x)
        return healed


class SelfHealingMLP(nn.Module):
    """Backbone and head are frozen while healing; only the reflex learns. Returns logits; sigmoid is the caller's."""

    def __init__(self, d: int = 10, hidden: int = 64) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.reflex = ReflexiveLayer(hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:  # (n, d) -> (n,)
        return self.healed(self.backbone(x))

    def healed(self, hidden: Tensor) -> Tensor:
        """(n, h) of the backbone -> (n,) logits through the reflex."""
        logits: Tensor = self.head(self.reflex(hidden))[:, 0]
        return logits

    def frozen(self, x: Tensor) -> Tensor:
        """The shadow: (n, d) -> (n,) logits without the reflex."""
        logits: Tensor = self.head(self.backbone(x))[:, 0]
        return logits

    def freeze_for_healing(self) -> None:
        """Leave gradients to the reflex alone."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("reflex."))

    def unfreeze_all(self) -> None:
        """Give every parameter its gradient back."""
        for parameter in self.parameters():
            parameter.requires_grad_(True)


def name_of(parameter: str) -> str:
    """The bundle's name of a parameter: reflex.net.0.weight is reflex.0.weight there, all others are the same."""
    return parameter.replace("reflex.net.", "reflex.")


def tensors_of(model: SelfHealingMLP) -> dict[str, Array]:
    """A copy of the weights, float32, under the bundle's names."""
    return {name_of(k): v.detach().numpy().astype(np.float32).copy() for k, v in model.state_dict().items()}


def model_of(bundle: Bundle, adapter: Adapter | None = None) -> SelfHealingMLP:
    """The bundle's network with the given adapter's reflex (None: the bundle's own)."""
    model = SelfHealingMLP(len(bundle.features), bundle.manifest.hidden)
    named = dict(bundle.weights)
    if adapter is not None:
        named |= {k: adapter.reflex[k] for k in reflex_shapes(bundle.manifest.hidden)}
    # Copied: torch warns of arrays it may not write to, such as those of a file.
    model.load_state_dict({k: torch.from_numpy(np.array(named[name_of(k)])) for k in model.state_dict()})
    return model
