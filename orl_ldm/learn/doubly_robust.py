"""Weighted doubly robust evaluation (Jiang and Li 2016; Thomas and Brunskill 2016): what a model says of a policy, put
right by what was logged.

    gain = mean_e V(s_{e,0}) + sum_t sum_e [ w_{e,t} (r_{e,t} - Q(s_{e,t}, a_{e,t})) + w_{e,t-1} V(s_{e,t}) 1(t > 0) ]

with V and Q of the policy's *mean* action by the model, and weights, normalised over the episodes for each t, of logged
actions by their density under the policy with its concentrations times `spread`: a mean has no density, and actions
near it stand for it (Kallus and Zhou 2018). A model that was fitted to everything holds for best what it knows least;
the residuals of episodes that did what the policy does tell by how much. What they add is taken in part, n episodes
that count by (n - 1) / (n + 1): one alone, as when an action is held, says nothing.

Legend: M members, E episodes, T longest episode, N transitions.
"""

import torch
from torch import Tensor

from orl_ldm.learn.data import Dataset
from orl_ldm.learn.estimates import Estimate, images, of_members
from orl_ldm.learn.importance import by_decision, effective, log_ratios, normalised
from orl_ldm.learn.model import Model, played
from orl_ldm.policy import Explorer, Policy


@torch.no_grad()
def corrected(model: Model, policy: Policy, data: Dataset) -> Tensor:
    """Gains (M, E) in standard deviations whose mean over images is the policy's; what episodes add, one by one."""
    explorer = Explorer(policy, [model.config.spread] * len(policy.spec.action_names))
    log_weights, _ = by_decision(log_ratios(explorer, data), data)  # (E, T)
    weights = normalised(log_weights).to(data.rewards)
    rows = torch.arange(len(data), device=weights.device)
    number = rows - data.starts[data.episode]  # (N,) 0 .. T - 1
    value, q = played(model, policy, data, rows), played(model, policy, data, rows, first=True)  # (M, N)
    before = torch.where(number > 0, weights[data.episode, (number - 1).clamp(min=0)], 0)  # (N,)
    added = weights[data.episode, number] * (data.rewards - q) + before * value  # (M, N)
    gains, count = value[:, data.starts], effective(weights[:, -1])
    index, total = images(data)
    rollouts = torch.bincount(index)[index]  # (E,) of each episode's image
    trusted = total * rollouts * (count - 1) / (count + 1)  # (E,) so that a mean over images is a sum over episodes
    return gains + trusted * torch.zeros_like(gains).index_add_(1, data.episode, added)


def estimate(model: Model, policy: Policy, data: Dataset, seed: int) -> Estimate:
    """The policy's reward on the images of `data`; its interval takes the weights as they are."""
    return of_members(corrected(model, policy, data), data, seed)
