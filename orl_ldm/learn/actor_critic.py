"""The update of PPO (Schulman et al. 2017), its gradients in closed form: what offline and online PPO share.

    ratio = pi(a | s) / anchor(a | s)
    minimise  policy_loss(ratio, A) + value_coefficient * value_loss(V(s)) - entropy_coefficient * entropy(pi(s))

with the details as in CleanRL: advantages normalised in each minibatch, values clipped, gradients clipped by their
norm, Adam with epsilon 1e-5.

Legend: B minibatch, F observation features, A action dimensions. Of 2A columns the first A belong to alpha and log u,
the others to beta and log(1 - u), u being an action in the unit interval.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from orl_ldm.learn import densities
from orl_ldm.learn.backprop import MLP, Adam, flatten
from orl_ldm.learn.config import PPOConfig
from orl_ldm.learn.networks import value_network
from orl_ldm.policy import BetaPolicy


def policy_loss(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The clipped surrogate (Schulman et al. 2017, equation 7), to be minimised, of (B,) and (B,)."""
    ratio = log_ratio.exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()


def policy_gradient(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Gradient (B,) of `policy_loss` in log_ratio: none where the clipped term is the smaller."""
    ratio = log_ratio.exp()
    gain = ratio * advantages
    clipped = ratio.clamp_(1 - clip, 1 + clip).mul_(advantages)
    return gain.masked_fill_(clipped < gain, 0.0).div_(-len(gain))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, the larger of that of the values and of the values clipped to near the old ones."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)  # (B,)
    return 0.5 * torch.max((values - returns).square(), (clipped - returns).square()).mean()


def value_gradient(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Gradient (B,) of `value_loss` in the values: none where the clipped error is the larger."""
    error = values - returns
    moved = values - old_values
    clipped = moved.clamp(-clip, clip).sub_(moved).add_(error)  # (the error itself where nothing is clipped)
    return error.masked_fill_(clipped.abs() > error.abs(), 0.0).div_(len(error))


class Batch(NamedTuple):
    """Transitions to learn from."""

    x: Tensor  # (B, F) normalised observations
    logs: Tensor  # (B, 2A) log u, log(1 - u)
    log_probs: Tensor  # (B,) of the anchor
    advantages: Tensor  # (B,)
    values: Tensor  # (B,) as they were
    returns: Tensor  # (B,)


class ActorCritic:
    """A policy and a value network of the same shape, and their optimiser."""

    def __init__(self, policy: BetaPolicy, config: PPOConfig) -> None:
        self.policy, self.config = policy, config
        self.values = value_network(len(policy.normalise.mean), policy.hidden).to(policy.normalise.mean.device)
        self.parameters = flatten(policy, self.values)
        self.optimizer = Adam(self.parameters, config.learning_rate, eps=1e-5)
        self.actor, self.critic = MLP(policy), MLP(self.values)
        self.parts: dict[str, nn.Module | Optimizer] = {
            "policy": policy,
            "values": self.values,
            "optimizer": self.optimizer,
        }

    @torch.no_grad()
    def learn(self, batch: Batch, orders: Sequence[Tensor]) -> dict[str, float]:
        """Pass over the batch in each of the orders (row numbers), in minibatches; means over all of them."""
        c, seen = self.config, []
        for order in orders:
            shuffled = [torch.split(column[order], c.batch_size) for column in batch]
            seen += [self.update(Batch(*columns)) for columns in zip(*shuffled, strict=True)]
        log_ratio, advantages, values, entropy = (torch.cat(columns) for columns in zip(*seen, strict=True))
        once = torch.cat(list(orders))
        ratio = log_ratio.exp()
        return {
            "losses/policy_loss": float(policy_loss(log_ratio, advantages, c.clip)),
            "losses/value_loss": float(value_loss(values, batch.values[once], batch.returns[once], c.clip)),
            "losses/entropy": float(entropy.mean()),
            "losses/approx_kl": float((ratio - 1 - log_ratio).mean()),  # Schulman's low-variance estimate
            "losses/clipfrac": float(((ratio - 1).abs() > c.clip).float().mean()),
        }

    def update(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step; log ratios, normalised advantages, values and entropies before it, (B,) each."""
        c, advantages = self.config, batch.advantages
        if len(advantages) > 1:
            std, mean = torch.std_mean(advantages)
            advantages = (advantages - mean) / (std + 1e-8)

        # 1. What policy and value network say.
        excess = F.softplus(self.actor.forward(batch.x))  # (B, 2A) alpha - 1, beta - 1
        values = self.critic.forward(batch.x)[:, 0]  # (B,)
        log_norm, expected = densities.family(excess)  # (B,), (B, 2A)
        log_ratio = (excess * batch.logs).sum(-1) - log_norm - batch.log_probs  # (B,)

        # 2. The gradient of the loss in what they say, and from there in the parameters.
        by_log_ratio = policy_gradient(log_ratio, advantages, c.clip)  # (B,)
        by_excess = by_log_ratio[:, None] * (batch.logs - expected)  # (B, 2A)
        if c.entropy_coefficient:
            by_excess -= densities.entropy_gradient(excess) * (c.entropy_coefficient / len(values))
        self.actor.backward(by_excess * -torch.expm1(-excess))  # softplus'(z) = 1 - exp(-softplus(z))
        by_value = value_gradient(values, batch.values, batch.returns, c.clip)  # (B,)
        self.critic.backward(c.value_coefficient * by_value[:, None])

        # 3. A step along it, no longer than max_grad_norm.
        gradient = self.parameters.grad
        assert gradient is not None
        gradient *= (c.max_grad_norm / (gradient.norm() + 1e-6)).clamp_(max=1.0)
        self.optimizer.step()
        return log_ratio, advantages, values, log_norm - (excess * expected).sum(-1)

    @torch.no_grad()
    def value(self, x: Tensor) -> Tensor:
        """Values (B,) of normalised observations (B, F)."""
        values: Tensor = self.values(x)[:, 0]
        return values
