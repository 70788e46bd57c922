"""Behaviour proximal policy optimization (BPPO).

Legend: B batch, N transitions, E episodes, F observation features, A action dimensions.
"""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.optim import Adam

from orl_ldm.config import STRICT
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.learner import LOSSES, Metrics, Parts, Values, refuse
from orl_ldm.learn.map_batched import map_batched
from orl_ldm.learn.networks import Ensemble, follow, gradient_step
from orl_ldm.learn.ppo import clipped_surrogate, diagnostics
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.learn.returns import discounted_returns
from orl_ldm.policy import BetaPolicy
from orl_ldm.policy.beta import MARGIN, distribution


@dataclass(frozen=True)
class BPPOConfig:
    """BPPO (Zhuang et al. 2023, algorithm 1): start at the behaviour, then take PPO's steps against learned advantages.

    First, the policy clones the behaviour, and Q (by SARSA) and V (by returns) are fitted to it. Then, in each epoch,
    with a ~ old(s) and A = w * normalised(Q(s, a) - V(s)), w = omega where A > 0, else 1 - omega,

        a candidate maximises min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A), ratio = candidate(a | s) / old(a | s)

    and replaces the old policy if Q says that its mean action is better in the first states. Defaults are the paper's;
    lengths and rates suit buffers of thousands.
    """

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 3e-4
    gamma: float = 0.99
    polyak: float = 0.005  # step of the target network towards Q
    clip: PositiveFloat = 0.25  # eps in the first epoch of improvement
    clip_decay: Annotated[float, Field(gt=0, le=1)] = 0.96  # factor of eps from epoch to epoch
    omega: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    max_grad_norm: float = 0.5
    fit_epochs: PositiveInt = 20
    epochs: PositiveInt = 60  # all of them
    steps: PositiveInt = 100  # gradient steps of an epoch
    batch_size: PositiveInt = 512

    def create(self, data: Dataset, run: RunConfig) -> "BPPO":
        """A new learner. Raises UserError for settings that it does not support."""
        refuse(run, "preference_conditioned", "fixed_actions", "fixed_first_actions")
        return BPPO(self, data, run)


class BPPO:
    """State of a run. `policy` is the old policy, the best so far."""

    def __init__(self, config: BPPOConfig, data: Dataset, run: RunConfig) -> None:
        self.config, self.data, self.seed = config, data, run.seed
        device, features = data.observations.device, data.observations.shape[1]
        self.policy = BetaPolicy(data.spec, run.hidden).to(device)
        self.policy.normalise.fit(data.observations, run.mask_features)
        self.candidate = copy.deepcopy(self.policy)
        self.critic = Ensemble(1, features + data.actions.shape[1], run.hidden).to(device)
        self.target = copy.deepcopy(self.critic)
        self.value_net = Ensemble(1, features, run.hidden).to(device)
        self.actor_optimizer = Adam(self.candidate.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        judges = [*self.critic.parameters(), *self.value_net.parameters()]
        self.critic_optimizer = Adam(judges, lr=config.learning_rate, fused=True)
        names = ("policy", "candidate", "critic", "target", "value_net", "actor_optimizer", "critic_optimizer")
        self.parts: Parts = {name: getattr(self, name) for name in names}
        self.returns = discounted_returns(data.rewards, data.ends, config.gamma)  # (N,)

    def epoch(self, index: int) -> Metrics:
        """`steps` gradient steps; then the candidate may replace the old policy."""
        c, fitting = self.config, index < self.config.fit_epochs
        clip = c.clip * c.clip_decay ** (index - c.fit_epochs)
        sums = dict.fromkeys(LOSSES, torch.zeros((), device=self.data.rewards.device))
        for step in range(index * c.steps, (index + 1) * c.steps):
            seed_step(self.seed, step)
            rows = draw(self.seed, step, len(self.data), c.batch_size).to(self.data.rewards.device)
            found = self.clone(rows) | self.fit(rows) if fitting else self.improve(rows, clip)
            sums |= {name: sums[name] + metric.detach() for name, metric in found.items()}
        if fitting or float(self.score(self.candidate).mean()) > float(self.score(self.policy).mean()):
            self.policy.load_state_dict(self.candidate.state_dict())
        return {name: float(total) / c.steps for name, total in sums.items()}

    def clone(self, rows: Tensor) -> dict[str, Tensor]:
        """A step of the candidate towards the logged actions."""
        pi = distribution(*self.candidate.concentrations(self.data.observations[rows]))
        loss = -pi.log_prob(self.data.actions[rows]).mean()
        gradient_step(loss, self.actor_optimizer, self.config.max_grad_norm)
        return {"losses/policy_loss": loss, "losses/entropy": pi.entropy().mean()}

    def fit(self, rows: Tensor) -> dict[str, Tensor]:
        """A step of Q and of V."""
        c, data = self.config, self.data
        with torch.no_grad():
            next_actions = data.actions[(rows + 1).clamp(max=len(data) - 1)]  # (B, A)
            next_q = self.q(self.target, data.next_observations[rows], next_actions)  # (B,)
            y = data.rewards[rows] + c.gamma * torch.where(data.ends[rows], 0.0, next_q)  # (B,)
        observations = data.observations[rows]
        q, v = self.q(self.critic, observations, data.actions[rows]), self.value(observations)  # (B,), (B,)
        loss = F.huber_loss(q, y) + F.huber_loss(v, self.returns[rows])
        gradient_step(loss, self.critic_optimizer, c.max_grad_norm)
        follow(self.target, self.critic, c.polyak)
        return {"losses/value_loss": loss}

    def improve(self, rows: Tensor, clip: float) -> dict[str, Tensor]:
        """A step of the candidate against the old policy."""
        observations = self.data.observations[rows]
        with torch.no_grad():
            old = distribution(*self.policy.concentrations(observations))
            actions = old.sample().clamp(MARGIN, 1 - MARGIN)  # (B, A)
            advantage = self.q(self.critic, observations, actions) - self.value(observations)  # (B,)
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            advantage *= torch.where(advantage > 0, self.config.omega, 1 - self.config.omega)
        pi = distribution(*self.candidate.concentrations(observations))
        log_ratio = pi.log_prob(actions) - old.log_prob(actions)  # (B,)
        loss = clipped_surrogate(log_ratio, advantage, clip)
        gradient_step(loss, self.actor_optimizer, self.config.max_grad_norm)
        return {"losses/policy_loss": loss, "losses/entropy": pi.entropy().mean(), **diagnostics(log_ratio, clip)}

    @torch.no_grad()
    def score(self, policy: BetaPolicy) -> Tensor:
        """(E,) Q of the policy's mean action, which is the one taken at evaluation, in the first states."""
        first = self.data.observations[self.data.starts]  # (E, F)
        alpha, beta = policy.concentrations(first)
        return self.q(self.critic, first, alpha / (alpha + beta))

    def q(self, critic: Ensemble, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (B,) of unit actions (B, A)."""
        return critic.forward(torch.cat([self.policy.normalise(observations), 2 * actions - 1], dim=-1))[0]

    def value(self, observations: Tensor) -> Tensor:
        """Values (B,) of observations (B, F)."""
        return self.value_net.forward(self.policy.normalise(observations))[0]

    @torch.no_grad()
    def values(self) -> Values:
        """V and returns, and Q of the old policy."""
        return Values(map_batched(self.value, self.data.observations), self.returns, self.score(self.policy))
