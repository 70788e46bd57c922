"""Action vectors and what they mean to the sampler."""

import torch
from torch import Tensor

from orl_ldm.actions import ACTIONS, STOPS, limits
from orl_ldm.diffusion.sampler import Decision, State
from orl_ldm.env.features import FEATURES
from orl_ldm.errors import UserError
from orl_ldm.policy import PolicySpec


def spec() -> PolicySpec:
    """Names and bounds of observations and actions, as the tables have them now."""
    return PolicySpec(
        feature_names=tuple(FEATURES),
        action_names=tuple(ACTIONS),
        action_low=tuple(action.low for action in ACTIONS.values()),
        action_high=tuple(action.high for action in ACTIONS.values()),
    )


def executed(actions: Tensor) -> Tensor:
    """Action vectors (B, A) as the sampler executes them: values beyond an action's limits are clamped."""
    columns = zip(ACTIONS, actions.to(torch.float32).unbind(-1), strict=True)
    return torch.stack([column.clamp(*limits(name)) for name, column in columns], dim=-1)


def decide(state: State, actions: Tensor) -> Decision:
    """Action vectors (B, A) as decisions: t_next = t * t_ratio, so that a ratio of 0 stops.

    Raises UserError for actions that are NaN or infinite.
    """
    if not bool(actions.isfinite().all()):
        raise UserError("an action is not finite: check the policy, or what the environment is given")
    named = dict(zip(ACTIONS, executed(actions).unbind(-1), strict=True))
    return Decision(state.t * named.pop(STOPS).double(), named)
