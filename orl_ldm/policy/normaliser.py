"""Observations in standard deviations from their mean."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """(..., F + P) -> (..., F + P), clipped to [-10, 10]: F named features, P preferences that sum to 1.

    The identity on features until `fit`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, names: Sequence[str], preferences: int = 0) -> None:
        super().__init__()
        self.names = tuple(names)
        typical = torch.full((preferences,), 1 / max(preferences, 1))
        self.register_buffer("mean", torch.cat([torch.zeros(len(names)), typical]))
        self.register_buffer("std", torch.cat([torch.ones(len(names)), typical]))

    def fit(self, observations: Tensor, masked: Sequence[str] = ()) -> None:
        """Learn means and standard deviations from observations (N, F); constant features keep a scale of 1.

        Features whose names begin with one of `masked` become 0: their scale is infinite.
        """
        std, count = observations.std(0), len(self.names)
        self.mean[:count] = observations.mean(0)
        self.std[:count] = torch.where(std > 1e-6, std, torch.ones_like(std))
        unseen = [name.startswith(tuple(masked)) for name in self.names]
        self.std[:count][torch.tensor(unseen, device=std.device)] = torch.inf

    def forward(self, observations: Tensor) -> Tensor:
        """Standard deviations from the mean."""
        return ((observations - self.mean) / self.std).clamp(-10, 10)
