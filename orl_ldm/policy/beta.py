"""Independent Beta distributions over a bounded action vector (Chou et al. 2017).

Legend: B batch, F features, A action dimensions. Observations are float32 (B, F), actions float32 (B, A) in natural
units, between spec.action_low and spec.action_high.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor, nn

from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.policy.spec import DECISION, PolicySpec

#: Actions are kept this far inside [0, 1], where every Beta density is finite.
MARGIN = 1e-4

#: alpha + beta of an action that is held: a spread of less than 0.005 of its range.
HELD = 1e4


class Policy(Protocol):
    """Anything that gives the concentrations of a Beta for every action dimension."""

    spec: PolicySpec

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), positive."""
        ...


class BetaPolicy(nn.Module):
    """An MLP from normalised observations to Beta concentrations above 1 (unimodal, mean never on the border).

    Observations are (B, F + P): a policy with preferences takes their weights, which sum to 1, behind the features.
    """

    held: Tensor

    def __init__(self, spec: PolicySpec, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.spec, self.hidden = spec, tuple(hidden)
        features, preferences, actions = len(spec.feature_names), len(spec.preference_names), len(spec.action_names)
        self.normalise = Normaliser(spec.feature_names, preferences)
        self.register_buffer("held", _held(spec), persistent=False)  # (2, A)
        sizes = [features + preferences, *hidden]
        layers: list[nn.Module] = []
        for i, o in pairwise(sizes):
            layers += [nn.Linear(i, o), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-1], 2 * actions)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.01)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), above 1 but for actions that are held."""
        alpha, beta = (1 + F.softplus(self.head(self.body(self.normalise(observations))))).chunk(2, dim=-1)
        return self.hold(observations, alpha, beta)

    def hold(self, observations: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The same (B, A), but narrow around the value of each action that is held."""
        if not (self.spec.held or self.spec.held_first):
            return alpha, beta
        if DECISION in self.spec.feature_names:
            first = observations[:, self.spec.feature_names.index(DECISION)] <= 0
        else:
            first = torch.zeros(len(observations), dtype=torch.bool, device=observations.device)
        held = torch.where(first[:, None], self.held[0], self.held[1])  # (B, A)
        free = held.isnan()
        return torch.where(free, alpha, HELD * held), torch.where(free, beta, HELD * (1 - held))

    forward = concentrations


def _held(spec: PolicySpec) -> Tensor:
    """(2, A) unit actions that are held in the first and in later decisions; NaN where they are free."""
    rows = [[torch.nan if value is None else value for value in held] for held in (spec.held_first, spec.held)]
    free = torch.full((len(spec.action_names),), torch.nan)
    return torch.stack([to_unit(spec, torch.tensor(row)) if row else free for row in rows])


def bounds(spec: PolicySpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high), each (A,), on the device of `like`."""
    return torch.tensor(spec.action_low).to(like), torch.tensor(spec.action_high).to(like)


def to_unit(spec: PolicySpec, actions: Tensor) -> Tensor:
    """Natural units -> (MARGIN, 1 - MARGIN)."""
    low, high = bounds(spec, actions)
    return ((actions - low) / (high - low)).clamp(MARGIN, 1 - MARGIN)


def from_unit(spec: PolicySpec, unit: Tensor) -> Tensor:
    """[0, 1] -> natural units."""
    low, high = bounds(spec, unit)
    return low + unit * (high - low)


def log_prob(policy: Policy, observations: Tensor, actions: Tensor) -> Tensor:
    """Log-density (B,) of actions in natural units."""
    alpha, beta = policy.concentrations(observations)
    low, high = bounds(policy.spec, actions)
    unit = to_unit(policy.spec, actions)
    normaliser = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    density = (alpha - 1) * unit.log() + (beta - 1) * torch.log1p(-unit) - normaliser
    return (density - (high - low).log()).sum(-1)


def mean_action(policy: Policy, observations: Tensor) -> Tensor:
    """The mean (B, A) in natural units. Not the mode: near concentrations of 1 that sits on the border."""
    alpha, beta = policy.concentrations(observations)
    return from_unit(policy.spec, alpha / (alpha + beta))


def sample_action(policy: Policy, observations: Tensor, uniforms: Tensor) -> Tensor:
    """Actions (B, A) by inverting the distribution function at uniforms (B, A): continuous in both arguments."""
    alpha, beta = (c.detach().cpu().double().numpy() for c in policy.concentrations(observations))
    unit = betaincinv(alpha, beta, uniforms.cpu().double().numpy()).clip(MARGIN, 1 - MARGIN)
    return from_unit(policy.spec, torch.from_numpy(np.asarray(unit, dtype=np.float32)).to(observations.device))
