"""A policy for many rewards, held at one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.policy.beta import Policy
from orl_ldm.reward import SETTINGS, Weights, as_weights, preference


class Preferring:
    """A policy with preferences under fixed ones: weights (P,) in the order of spec.preference_names, brought to 1."""

    def __init__(self, policy: Policy, weights: Sequence[float]) -> None:
        self.spec, self.policy = replace(policy.spec, preference_names=()), policy
        self._weights = torch.tensor(weights, dtype=torch.float32) / sum(weights)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), of observations (B, F)."""
        weights = self._weights.to(observations).expand(len(observations), -1)
        return self.policy.concentrations(torch.cat([observations, weights], dim=-1))


def under(policy: Policy, facts: Mapping[str, Any], prefer: str, who: str) -> tuple[Policy, Weights]:
    """(the policy under a preference in words, its weights); without words, under those that its facts give.

    Raises UserError for words that are unknown, and for a policy that was trained for one preference only.
    """
    weights = preference(prefer) if prefer else as_weights(facts.get("weights", SETTINGS["paper"]))
    if policy.spec.preference_names:
        return Preferring(policy, tuple(weights.values())), weights
    if prefer:
        raise UserError(f"{who} was trained for one preference: train one for all with --set train.dial=true")
    return policy, weights
