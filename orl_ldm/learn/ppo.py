"""Offline proximal policy optimization (PPO), as in Lyu 2025, Table 1.

Legend: N transitions, B minibatch, F observation features, A action dimensions.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Adam

from orl_ldm.config import STRICT
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.learner import Metrics, Parts, Values, refuse
from orl_ldm.learn.map_batched import map_batched
from orl_ldm.learn.networks import gradient_step, value_network
from orl_ldm.learn.randomness import draw, shuffle
from orl_ldm.learn.returns import gae, vtrace
from orl_ldm.policy import BetaPolicy
from orl_ldm.policy.beta import distribution


@dataclass(frozen=True)
class PPOConfig:
    """Offline PPO (Schulman et al. 2017): the ratio is taken to the *logged* behaviour.

        ratio = pi(a | s) / behaviour(a | s)
        loss = policy_loss + value_coefficient * value_loss - entropy_coefficient * entropy(pi(s))
        policy_loss = -mean min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)
        value_loss = 1/2 mean max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2)

    Advantages A and returns R are GAE's (Schulman et al. 2016), or V-trace's (Espeholt et al. 2018), which corrects
    for the difference between policy and behaviour. Details follow CleanRL: advantages are normalised in each
    minibatch, gradients are clipped by their norm, Adam has an epsilon of 1e-5.

    The behaviour never moves, so the clip keeps the policy near it: from a broad behaviour it improves a little and
    stops. It is here as the paper's method. Defaults are those of the paper's Table 1, then CleanRL's.
    """

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 3e-4
    """step size of Adam"""
    gamma: float = 0.99
    """discount factor"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    advantage: Literal["gae", "vtrace"] = "gae"
    """estimator of advantages and returns"""
    rho_bar: PositiveFloat = 1.0
    """truncation of V-trace that decides which policy the values are of"""
    c_bar: PositiveFloat = 1.0
    """truncation of V-trace that decides how far back an error is carried"""
    clip: PositiveFloat = 0.2
    """clip of the ratio, and of the change of values"""
    value_coefficient: float = 0.5
    """weight of the value loss"""
    entropy_coefficient: float = 0.0
    """weight of the entropy bonus"""
    max_grad_norm: float = 0.5
    """largest norm of the gradient of all parameters together"""
    epochs: PositiveInt = 1000
    """draws from the buffer"""
    steps_per_epoch: PositiveInt = 1000
    """transitions of a draw"""
    batch_size: PositiveInt = 64
    """transitions of a minibatch"""
    update_epochs: PositiveInt = 4
    """passes over each draw"""

    @property
    def steps(self) -> int:
        """Gradient steps of an epoch."""
        return self.update_epochs * -(-self.steps_per_epoch // self.batch_size)

    def create(self, data: Dataset, run: RunConfig) -> "PPO":
        """A new learner. Raises UserError for settings that it does not support."""
        refuse(run, "preference_conditioned", "fixed_actions", "fixed_first_actions")
        return PPO(self, data, run)


class Batch(NamedTuple):
    """Transitions to learn from."""

    observations: Tensor  # (B, F)
    actions: Tensor  # (B, A) unit actions
    log_probs: Tensor  # (B,) of the behaviour
    advantages: Tensor  # (B,)
    values: Tensor  # (B,) before the update
    returns: Tensor  # (B,)


class PPO:
    """A policy, a value network of the same shape, and their optimizer."""

    def __init__(self, config: PPOConfig, data: Dataset, run: RunConfig) -> None:
        self.config, self.data, self.seed = config, data, run.seed
        device = data.observations.device
        self.policy = BetaPolicy(data.spec, run.hidden).to(device)
        self.policy.normalise.fit(data.observations, run.mask_features)
        self.critic = value_network(data.observations.shape[1], run.hidden).to(device)
        parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = Adam(parameters, lr=config.learning_rate, eps=1e-5, fused=True)
        self.parts: Parts = {"policy": self.policy, "critic": self.critic, "optimizer": self.optimizer}
        self.before = self.after = torch.zeros(len(data), device=device)  # (N,), (N,) values and returns of an epoch

    def epoch(self, index: int) -> Metrics:
        """One draw from the buffer, and `update_epochs` passes over it."""
        c, data = self.config, self.data

        # 1. Advantages and returns of the whole buffer.
        with torch.no_grad():
            values = map_batched(self.value, data.observations)  # (N,)
            if c.advantage == "vtrace":
                log_ratio = map_batched(self.log_prob, data.observations, data.actions) - data.log_probs  # (N,)
                advantages, returns = vtrace(data.rewards, values, log_ratio, data.ends, c.gamma, c.rho_bar, c.c_bar)
            else:
                advantages = gae(data.rewards, values, data.ends, c.gamma, c.gae_lambda)  # (N,)
                returns = advantages + values  # (N,)
        self.before, self.after = values, returns

        # 2. Gradient steps on a draw of it.
        rows = draw(self.seed, index, len(data), c.steps_per_epoch).to(values.device)
        columns = (data.observations, data.actions, data.log_probs, advantages, values, returns)
        batch = Batch(*(column[rows] for column in columns))
        sums: dict[str, Tensor] = {}
        for turn in range(c.update_epochs):
            order = shuffle(self.seed, index, turn, c.steps_per_epoch).to(values.device)
            for minibatch in torch.split(order, c.batch_size):
                for name, metric in self.update(Batch(*(column[minibatch] for column in batch))).items():
                    sums[name] = sums.get(name, torch.zeros_like(metric)) + metric * len(minibatch)
        return {name: float(total) / (c.update_epochs * c.steps_per_epoch) for name, total in sums.items()}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step; metrics from before it."""
        loss, metrics = ppo_loss(self.policy, self.critic, batch, self.config)
        gradient_step(loss, self.optimizer, self.config.max_grad_norm)
        return metrics

    def value(self, observations: Tensor) -> Tensor:
        """Values (B,) of observations (B, F)."""
        return value(self.policy, self.critic, observations)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Log-densities (B,) of unit actions (B, A)."""
        return distribution(*self.policy.concentrations(observations)).log_prob(actions)

    def values(self) -> Values:
        """Values and returns that the last epoch's advantages came from."""
        return Values(self.before, self.after)


def ppo_loss(
    policy: BetaPolicy, critic: nn.Module, batch: Batch, config: PPOConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """(the loss to minimise, its parts and diagnostics by CleanRL's names)."""
    advantages = batch.advantages
    if len(advantages) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    pi = distribution(*policy.concentrations(batch.observations))
    log_ratio = pi.log_prob(batch.actions) - batch.log_probs  # (B,)
    policy_loss = clipped_surrogate(log_ratio, advantages, config.clip)

    values = value(policy, critic, batch.observations)  # (B,)
    clipped = batch.values + (values - batch.values).clamp(-config.clip, config.clip)  # (B,)
    value_loss = 0.5 * torch.max((values - batch.returns).square(), (clipped - batch.returns).square()).mean()

    entropy = pi.entropy().mean()
    loss = policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy
    losses = {"losses/policy_loss": policy_loss, "losses/value_loss": value_loss, "losses/entropy": entropy}
    return loss, {name: metric.detach() for name, metric in (losses | diagnostics(log_ratio, config.clip)).items()}


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The clipped surrogate (Schulman et al. 2017, equation 7), to be minimised, of (B,) and (B,)."""
    ratio = log_ratio.exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()


def diagnostics(log_ratio: Tensor, clip: float) -> dict[str, Tensor]:
    """How far the policy has moved (Schulman's low-variance estimate of the KL), and how often it was clipped."""
    ratio = log_ratio.exp()
    clipped = ((ratio - 1).abs() > clip).float().mean()
    return {"losses/approx_kl": (ratio - 1 - log_ratio).mean(), "losses/clipfrac": clipped}


def value(policy: BetaPolicy, critic: nn.Module, observations: Tensor) -> Tensor:
    """Values (B,) of observations (B, F), which the critic sees normalised as the policy does."""
    values: Tensor = critic(policy.normalise(observations))[:, 0]
    return values
