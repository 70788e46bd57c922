"""A preference-conditioned policy with one preference applied."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from orl_ldm.policy.beta import Policy


class _Preferring:
    """A preference-conditioned policy as a policy of observations (B, F) alone."""

    def __init__(self, policy: Policy, weights: Tensor) -> None:
        self.spec, self.policy, self._weights = replace(policy.spec, preference_names=()), policy, weights

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), of observations (B, F)."""
        weights = self._weights.to(observations).expand(len(observations), -1)
        return self.policy.concentrations(torch.cat([observations, weights], dim=-1))


def with_preference(policy: Policy, weights: Mapping[str, float]) -> Policy:
    """The policy under these reward weights, scaled to a sum of 1; the policy itself if it takes no preference."""
    names = policy.spec.preference_names
    if not names:
        return policy
    wanted = torch.tensor([weights[name] for name in names], dtype=torch.float32)
    return _Preferring(policy, wanted / wanted.sum())
