"""Policy networks: multilayer perceptrons that output the concentrations of independent Betas.

Legend: B batch, F features, P preferences, A action dimensions.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orl_ldm.policy.beta import MARGIN, to_unit
from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.policy.spec import DECISION, POSITION, PolicySpec

#: alpha + beta of a fixed action: a spread of less than 0.005 of its range.
FIXED = 1e4

#: The mean of a squashed policy stays this far inside [0, 1]: a Beta needs both concentrations above zero.
INSIDE = 1e-6

#: alpha + beta of a squashed policy: about as wide as the Beta policies become.
CONCENTRATION = 10.0


class BetaPolicy(nn.Module):
    """Normalised observations (B, F + P) -> concentrations above 1: unimodal, the mean never on the border."""

    fixed: Tensor

    def __init__(self, spec: PolicySpec, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.spec, self.hidden = spec, tuple(hidden)
        inputs = len(spec.feature_names) + len(spec.preference_names)
        self.normalise = Normaliser(spec.feature_names, len(spec.preference_names))
        self.register_buffer("fixed", _fixed(spec), persistent=False)  # (2, A)
        self.body, self.head = body(inputs, hidden, nn.SiLU), nn.Linear(hidden[-1], 2 * len(spec.action_names))
        _start_small(self.head)

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), above 1 except for fixed actions."""
        alpha, beta = (1 + F.softplus(self.head(self.body(self.normalise(observations))))).chunk(2, dim=-1)
        return self.fix(observations, alpha, beta)

    def fix(self, observations: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The same (B, A), except that fixed actions are narrow around their values."""
        if not (self.spec.fixed_actions or self.spec.fixed_first_actions):
            return alpha, beta
        fixed = torch.where(is_first(self.spec, observations)[:, None], self.fixed[0], self.fixed[1])  # (B, A)
        free = fixed.isnan()
        return torch.where(free, alpha, FIXED * fixed), torch.where(free, beta, FIXED * (1 - fixed))

    forward = concentrations


class PlannedPolicy(nn.Module):
    """A shared plan for the first decision, and a Beta policy, the actor, for later ones.

    The plan is a small network that sees the position in the episode and the preferences, but not the image: every
    image starts alike. Its spread is the actor's.
    """

    visible: Tensor

    def __init__(self, spec: PolicySpec, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.spec, self.hidden = spec, tuple(hidden)
        self.actor = BetaPolicy(spec, hidden)
        visible = [name.startswith(POSITION) for name in spec.feature_names] + [True] * len(spec.preference_names)
        self.register_buffer("visible", torch.tensor(visible), persistent=False)  # (F + P,)
        self.planner = nn.Sequential(*body(sum(visible), (64, 64), nn.SiLU), nn.Linear(64, len(spec.action_names)))
        _start_small(self.planner[-1])

    def plan(self, observations: Tensor) -> Tensor:
        """Unit actions (B, A) of the plan, inside the range by MARGIN, where a Beta has a density."""
        visible = self.actor.normalise(observations)[:, self.visible]
        planned: Tensor = MARGIN + (1 - 2 * MARGIN) * self.planner(visible).sigmoid()
        return planned

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A)."""
        alpha, beta = self.actor.concentrations(observations)
        plan, total, first = self.plan(observations), alpha + beta, is_first(self.spec, observations)[:, None]
        alpha, beta = torch.where(first, plan * total, alpha), torch.where(first, (1 - plan) * total, beta)
        return self.actor.fix(observations, alpha, beta)

    forward = concentrations


class SquashedPolicy(nn.Module):
    """A deterministic policy through tanh, as the actors of d3rlpy, with a spread to explore by.

    The mean unit action is (1 + tanh(.)) / 2 of an MLP with ReLU.
    """

    def __init__(self, spec: PolicySpec, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.spec, self.hidden = spec, tuple(hidden)
        self.normalise = Normaliser(spec.feature_names)
        self.body = body(len(spec.feature_names), hidden, nn.ReLU)
        self.head = nn.Linear(hidden[-1], len(spec.action_names))

    def concentrations(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, each (B, A), of observations (B, F)."""
        mean = ((1 + self.head(self.body(self.normalise(observations))).tanh()) / 2).clamp(INSIDE, 1 - INSIDE)
        return CONCENTRATION * mean, CONCENTRATION * (1 - mean)

    forward = concentrations


def body(inputs: int, hidden: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """The hidden layers of an MLP: (B, inputs) -> (B, hidden[-1])."""
    layers: list[nn.Module] = []
    for i, o in pairwise([inputs, *hidden]):
        layers += [nn.Linear(i, o), activation()]
    return nn.Sequential(*layers)


def is_first(spec: PolicySpec, observations: Tensor) -> Tensor:
    """(B,) whether observations are of an episode's first decision; never where no feature tells."""
    if DECISION not in spec.feature_names:
        return torch.zeros(len(observations), dtype=torch.bool, device=observations.device)
    return observations[:, spec.feature_names.index(DECISION)] <= 0


def _start_small(layer: nn.Module) -> None:
    """Nearly the same output for every input."""
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]


def _fixed(spec: PolicySpec) -> Tensor:
    """(2, A) unit actions that are fixed in the first and in later decisions; NaN where they are free."""
    rows = [row or (None,) * len(spec.action_names) for row in (spec.fixed_first_actions, spec.fixed_actions)]
    values = [[torch.nan if value is None else value for value in row] for row in rows]
    return to_unit(spec, torch.tensor(values, dtype=torch.float32))
