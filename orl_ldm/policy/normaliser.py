"""What networks see of observations: how far they are from what is usual, in standard deviations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orl_ldm.policy.spec import DECISION, POSITION


class Normaliser(nn.Module):
    """(..., F + P) -> (..., F + P), within ten standard deviations: F named features, P preferences that sum to 1.

    As it is made it leaves features as they are; `fit` learns what is usual.
    """

    mean: Tensor
    std: Tensor
    first: Tensor

    def __init__(self, names: Sequence[str], preferences: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        typical = torch.full((preferences,), 1 / max(preferences, 1))
        self.register_buffer("mean", torch.cat([torch.zeros(len(names)), typical]))
        self.register_buffer("std", torch.cat([torch.ones(len(names)), typical]))
        self.register_buffer("first", torch.ones(len(names) + preferences))

    def fit(self, observations: Tensor, hidden: Sequence[str] = (), first_sight: float = 1.0) -> None:
        """Learn from (N, F); constant features keep a scale of 1.

        Features whose names begin with one of `hidden` are not seen: their scale is infinite. Where an episode begins,
        what is seen beside the position is multiplied by `first_sight`.
        """
        std, count = observations.std(0), len(self.names)
        self.mean[:count] = observations.mean(0)
        self.std[:count] = torch.where(std > 1e-6, std, torch.ones_like(std))
        unseen = [name.startswith(tuple(hidden)) for name in self.names]
        self.std[:count][torch.tensor(unseen, device=std.device)] = torch.inf
        of_image = [not name.startswith(POSITION) for name in self.names]
        self.first[:count][torch.tensor(of_image, device=std.device)] = first_sight

    def forward(self, observations: Tensor) -> Tensor:
        """Standard deviations from what is usual."""
        seen = ((observations - self.mean) / self.std).clamp(-10, 10)
        if DECISION not in self.names:
            return seen
        decision = observations[..., self.names.index(DECISION), None]
        return torch.where(decision <= 0, seen * self.first, seen)
