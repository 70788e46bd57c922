"""Per-decision weighted importance sampling, WIS (Precup et al. 2000; consistent form: Thomas 2015).

    w_t = prod_{k <= t} pi(a_k | s_k) / behaviour(a_k | s_k)
    gain = sum_t sum_e w_{e,t} r_{e,t} / sum_e w_{e,t}

An episode that has ended keeps its last weight in the sums of later decisions. A single action has no density, so this
estimates the *stochastic* policy, not its mean action.

Legend: N transitions, E episodes, I images, R resamples, T longest episode.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from orl_ldm.learn.data import Dataset
from orl_ldm.learn.ope.estimates import Estimate, images, resamples, summary
from orl_ldm.policy import Policy
from orl_ldm.policy.beta import distribution


@dataclass(frozen=True)
class Weighted:
    """An estimate, and the number of episodes that it effectively rests on (Kish 1965)."""

    estimate: Estimate
    effective_sample_size: float


@torch.no_grad()
def weighted_importance(policy: Policy, data: Dataset, seed: int) -> Weighted:
    """The stochastic policy's reward on the images of `data`."""
    pi = distribution(*policy.concentrations(data.observations))
    log_ratio = pi.log_prob(data.actions) - data.log_probs  # (N,)
    log_weights, rewards = by_decision(log_ratio, data)  # (E, T), (E, T)
    weights = log_weights.softmax(dim=0)  # sum to 1 over the episodes
    index, count = images(data)
    above = rewards.new_zeros(count, rewards.shape[1]).index_add_(0, index, weights * rewards)  # (I, T)
    below = rewards.new_zeros(count, rewards.shape[1]).index_add_(0, index, weights)  # (I, T)
    counts = resamples(count, seed).to(rewards)  # (R, I)
    resampled = ((counts @ above) / (counts @ below).clamp(min=1e-30)).sum(1)  # (R,)
    gain = (above.sum(0) / below.sum(0)).sum()
    return Weighted(summary(gain, resampled, data), float(1 / weights[:, -1].square().sum()))


def by_decision(log_ratio: Tensor, data: Dataset) -> tuple[Tensor, Tensor]:
    """(logarithm of w, r), each float64 (E, T), of log ratios (N,)."""
    number = torch.arange(len(data), device=log_ratio.device) - data.starts[data.episode]  # (N,) 0 .. T - 1
    shape = (len(data.starts), int(number.max()) + 1)
    logs, rewards = (torch.zeros(shape, dtype=torch.float64, device=log_ratio.device) for _ in range(2))
    logs[data.episode, number], rewards[data.episode, number] = log_ratio.double(), data.rewards.double()
    return logs.cumsum(1), rewards
