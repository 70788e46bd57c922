"""Policies that collect: a broad one to begin with, and exploration around a trained one.

Legend: B batch, F features, A action dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from orl_ldm.policy.beta import Policy
from orl_ldm.policy.networks import is_first
from orl_ldm.policy.spec import PolicySpec


class BroadPolicy:
    """The exploring behaviour: the same broad Beta for every observation."""

    def __init__(self, spec: PolicySpec, alpha: Sequence[float], beta: Sequence[float]) -> None:
        self.spec = spec
        self._alpha, self._beta = torch.tensor(alpha, dtype=torch.float32), torch.tensor(beta, dtype=torch.float32)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The constant alpha and beta, each (B, A)."""
        shape = (len(observations), len(self._alpha))
        return self._alpha.to(observations).expand(shape), self._beta.to(observations).expand(shape)


class Explorer:
    """A policy with its concentrations multiplied by a factor for each action: the same mean, wider below 1.

    The first decision of an episode keeps the policy's own spread.
    """

    def __init__(self, policy: Policy, factors: Sequence[float]) -> None:
        self.spec, self.policy = policy.spec, policy
        self._factors = torch.tensor(factors, dtype=torch.float32)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled alpha and beta, each (B, A)."""
        alpha, beta = self.policy.concentrations(observations)
        factors = torch.where(is_first(self.spec, observations)[:, None], 1.0, self._factors.to(alpha))
        return alpha * factors, beta * factors
