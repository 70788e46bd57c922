"""The dial: weights of the reward as a part of the observation, drawn anew for every transition that is learned from.

Legend: B batch, N transitions, F features, P preferences: 4 in the order of WEIGHTED, or 0 where the weights are fixed.
"""

from dataclasses import astuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from orl_ldm.errors import UserError
from orl_ldm.learn.data import Dataset
from orl_ldm.reward import WEIGHTED

#: Concentrations of the weights that are drawn: all of the simplex, most often around the named settings.
SPREAD = (1.2, 1.2, 2.0, 0.6)


class Preferences:
    """Draws weights and relabels rewards; without a dial there are no weights, and rewards are those of the data."""

    def __init__(self, data: Dataset, dial: bool) -> None:
        """Raises UserError when the data are shaped: potentials have no terms to weigh."""
        self.data, self.names = data, WEIGHTED if dial else ()
        weights = torch.tensor(astuple(data.weights)).to(data.rewards)
        self._judged = weights / weights.sum() if dial else weights[:0]
        if dial and not torch.allclose(data.rewards, self.rewards(data.gains, self._judged), atol=1e-4):
            raise UserError("train.dial relabels rewards by their terms: it does not go with shaping")

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, P) that sum to 1, from torch's generator, and rewards (B,) under them in standard deviations."""
        data = self.data
        if not self.names:
            return data.rewards.new_zeros(len(rows), 0), data.rewards[rows]
        weights = Dirichlet(torch.tensor(SPREAD)).sample((len(rows),)).to(data.rewards)
        return weights, self.rewards(data.gains[rows], weights)

    def rewards(self, gains: Tensor, weights: Tensor) -> Tensor:
        """(B,) of gains (B, 4) under weights (B, 4) or (4,), each in the standard deviations of its own weights."""
        variance = ((weights @ self.data.gain_covariance) * weights).sum(-1)
        return (gains * weights).sum(-1) / variance.clamp(min=1e-12).sqrt()

    def judged(self, observations: Tensor) -> Tensor:
        """Observations (N, F) with the weights that the run is judged by behind them, (N, F + P)."""
        return torch.cat([observations, self._judged.expand(len(observations), -1)], dim=-1)
