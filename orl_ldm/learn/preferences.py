"""Preferences: the reward's weights as part of the observation, drawn anew for every transition that is learned from.

Legend: B batch, N transitions, F features, P preferences in the order of `weighted()` (0 for a policy of one reward),
R terms: as many (1 for a policy of one reward).
"""

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from orl_ldm.learn.data import Dataset
from orl_ldm.reward import weighted

#: Concentration of the drawn weights by term, for all of the simplex, most often around the named settings; or OTHER.
SPREAD, OTHER = {"psnr": 1.2, "ssim": 1.2, "lpips": 2.0, "nfe": 0.6}, 1.0


class Preferences:
    """Draws weights, and composes values of terms; without preferences the only term is the reward itself.

    Terms are in their own standard deviations, values in that of the weighted sum.
    """

    def __init__(self, data: Dataset, conditioned: bool) -> None:
        self.names = weighted() if conditioned else ()
        weights = torch.tensor(tuple(data.weights.values())).to(data.rewards)
        self._judged = weights / weights.sum() if conditioned else weights[:0]
        self._covariance = data.term_covariance if conditioned else torch.ones(1, 1).to(data.rewards)
        self._std = self._covariance.diagonal().clamp(min=1e-12).sqrt()  # (R,)
        #: (N, R) gains of an episode, on its last transition.
        self.gains = data.term_gains / self._std if conditioned else data.rewards[:, None]

    def draw(self, count: int) -> Tensor:
        """Weights (B, P) that sum to 1, from torch's generator."""
        if not self.names:
            return self._std.new_zeros(count, 0)
        spread = torch.tensor([SPREAD.get(name, OTHER) for name in self.names])
        return Dirichlet(spread).sample((count,)).to(self._std)

    def shares(self, weights: Tensor) -> Tensor:
        """(B, R) factors by which terms add up to a value, for weights (B, P)."""
        if not self.names:
            return torch.ones_like(self._std).expand(*weights.shape[:-1], 1)
        variance = ((weights @ self._covariance) * weights).sum(-1, keepdim=True)
        return weights * self._std / variance.clamp(min=1e-12).sqrt()

    def judged(self, observations: Tensor) -> Tensor:
        """Observations (N, F) followed by the weights of the run's reward, (N, F + P)."""
        return torch.cat([observations, self._judged.expand(len(observations), -1)], dim=-1)
