"""Policies that collect: broad ones to begin with, and what explores around a policy that was learned.

Legend: B batch, F features, A action dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from orl_ldm.policy.beta import Policy
from orl_ldm.policy.spec import DECISION, PolicySpec


class BroadPolicy:
    """The exploring behaviour: the same broad Beta whatever is observed."""

    def __init__(self, spec: PolicySpec, alpha: Sequence[float], beta: Sequence[float]) -> None:
        self.spec = spec
        self._alpha, self._beta = torch.tensor(alpha, dtype=torch.float32), torch.tensor(beta, dtype=torch.float32)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """The constant alpha and beta, each (B, A)."""
        shape = (len(observations), len(self._alpha))
        return self._alpha.to(observations).expand(shape), self._beta.to(observations).expand(shape)


class Explorer:
    """A policy with its concentrations times a factor for each action: the same mean, wider below 1, narrower above.

    An episode's first decision, where to begin, keeps the policy's own, if one of the policy's features tells it.
    """

    def __init__(self, policy: Policy, factors: Sequence[float]) -> None:
        self.spec, self.policy = policy.spec, policy
        self._factors, names = torch.tensor(factors, dtype=torch.float32), policy.spec.feature_names
        self._decision = names.index(DECISION) if DECISION in names else None

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled alpha and beta, each (B, A)."""
        alpha, beta = self.policy.concentrations(observations)
        factors = self._factors.to(alpha).expand_as(alpha)
        if self._decision is not None:
            factors = torch.where(observations[:, self._decision, None] <= 0, 1.0, factors)
        return alpha * factors, beta * factors
