"""The dial: weights of the reward as a part of the observation, drawn anew for every transition that is learned from.

Legend: B batch, N transitions, F features, P preferences in the order of `weighted()`, or 0
where the weights are fixed, R terms: as many, or 1 where the weights are fixed.
"""

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from orl_ldm.learn.data import Dataset
from orl_ldm.reward import weighted

#: Concentrations of the weights that are drawn: all of the simplex, most often around the named settings.
SPREAD = (1.2, 1.2, 2.0, 0.6)


class Preferences:
    """Draws weights, and says what they make of the terms; without a dial the only term is the reward itself.

    Terms are in standard deviations of their own, and so is what they come to under any weights.
    """

    def __init__(self, data: Dataset, dial: bool) -> None:
        self.names = weighted() if dial else ()
        weights = torch.tensor(tuple(data.weights.values())).to(data.rewards)
        self._judged = weights / weights.sum() if dial else weights[:0]
        self._covariance = data.gain_covariance if dial else torch.ones(1, 1).to(data.rewards)
        self._std = self._covariance.diagonal().clamp(min=1e-12).sqrt()  # (R,)
        #: (N, R) what an episode gains, on its last transition.
        self.gains = data.gains / self._std if dial else data.rewards[:, None]

    def draw(self, count: int) -> Tensor:
        """Weights (B, P) that sum to 1, from torch's generator."""
        if not self.names:
            return self._std.new_zeros(count, 0)
        return Dirichlet(torch.tensor(SPREAD)).sample((count,)).to(self._std)

    def shares(self, weights: Tensor) -> Tensor:
        """(B, R) by which terms in their units add up to the reward in its own, of weights (B, P); or (R,) of (P,)."""
        if not self.names:
            return torch.ones_like(self._std).expand(*weights.shape[:-1], 1)
        variance = ((weights @ self._covariance) * weights).sum(-1, keepdim=True)
        return weights * self._std / variance.clamp(min=1e-12).sqrt()

    def judged(self, observations: Tensor) -> Tensor:
        """Observations (N, F) with the weights that the run is judged by behind them, (N, F + P)."""
        return torch.cat([observations, self._judged.expand(len(observations), -1)], dim=-1)
