"""Behaviour proximal policy optimisation (Zhuang et al. 2023, algorithm 1).

PPO's clip already keeps a policy near the one before it, so offline it needs no further constraint: start at the
behaviour, and take proximal steps against advantages that were fitted to its data. First, for `fit_epochs`,

    the policy maximises log pi(a | s) of logged actions  (behaviour cloning)
    Q minimises Huber(Q(s, a) - r - gamma * Q'(s', a')), a' being the logged next action  (SARSA)
    V minimises Huber(V(s) - return);

then, in each epoch that follows, with actions a ~ old(s) and A = w * normalised(Q(s, a) - V(s)),

    a candidate maximises min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A), ratio = candidate(a | s) / old(a | s)

where w is omega for good actions and 1 - omega for bad ones, eps shrinks by `clip_decay` from epoch to epoch, and the
candidate replaces the old policy only when Q says that its mean action is better in the first states. With
`off_policy`, Q goes on learning in these epochs with the old policy's own next actions (the paper's Q_pi): one-step
improvement of a random behaviour is blind to plans whose later steps must be good.

Legend: B batch, N transitions, E episodes, F observation features, A action dimensions.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orl_ldm.learn import densities
from orl_ldm.learn.actor_critic import policy_loss
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.metrics import Metrics, explained_variance, importance
from orl_ldm.learn.networks import Ensemble
from orl_ldm.learn.passes import in_blocks
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.learn.returns import discounted_returns
from orl_ldm.policy import BetaPolicy
from orl_ldm.policy.beta import MARGIN


class BPPO:
    """State of a run; `epoch` does the learning. `policy` is the old policy, the best so far."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        self.data, self.config, self.seed = data, config.bppo, config.seed
        self.epochs = self.config.epochs
        self.samples = self.config.steps * self.config.batch_size
        device, features = data.observations.device, data.observations.shape[1]
        self.policy = BetaPolicy(data.spec, config.hidden).to(device)
        self.policy.normalise.fit(data.observations, config.hide)
        self.candidate = copy.deepcopy(self.policy)
        self.critic = Ensemble(1, features + data.actions.shape[1], config.hidden).to(device)
        self.target = copy.deepcopy(self.critic)
        self.values = Ensemble(1, features, config.hidden).to(device)
        rate = self.config.learning_rate
        self.actor_optimizer = Adam(self.candidate.parameters(), lr=rate, eps=1e-5, fused=True)
        self.critic_optimizer = Adam([*self.critic.parameters(), *self.values.parameters()], lr=rate, fused=True)
        self.parts: dict[str, nn.Module | Optimizer] = {
            "policy": self.policy,
            "candidate": self.candidate,
            "critic": self.critic,
            "target": self.target,
            "values": self.values,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }
        self.returns = discounted_returns(data.rewards, data.ends, self.config.gamma)  # (N,)

    def epoch(self, index: int) -> Metrics:
        """`steps` gradient steps, then the old policy's replacement."""
        c, data = self.config, self.data
        fitting = index < c.fit_epochs
        clip = c.clip * c.clip_decay ** (index - c.fit_epochs)
        sums = torch.zeros(5, device=data.rewards.device)
        for step in range(index * c.steps, (index + 1) * c.steps):
            seed_step(self.seed, step)
            rows = draw(self.seed, step, len(data), c.batch_size).to(data.rewards.device)
            sums[:4] += torch.stack(self.clone(rows) if fitting else self.improve(rows, clip))
            if fitting:
                sums[4] += self.fit(rows, self.logged_next(rows))
            elif c.off_policy:
                sums[4] += self.fit(rows, self.sample(data.next_observations[rows]))
        with torch.no_grad():
            if fitting or self.score(self.candidate) > self.score(self.policy):
                self.policy.load_state_dict(self.candidate.state_dict())
            return self.metrics(*(sums / c.steps).tolist())

    def clone(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A step towards the logged actions: loss, entropy and, as nothing is clipped, two zeros."""
        alpha, beta = self.candidate.concentrations(self.data.observations[rows])  # (B, A), (B, A)
        loss = -densities.log_prob(alpha, beta, self.data.actions[rows]).mean()
        self.descend(self.actor_optimizer, loss)
        none = torch.zeros_like(loss)
        return loss.detach(), densities.entropy(alpha, beta).mean().detach(), none, none

    def fit(self, rows: Tensor, next_actions: Tensor) -> Tensor:
        """A step of Q, bootstrapped with the next actions (B, A), and of V: the loss of both."""
        c, data = self.config, self.data
        with torch.no_grad():
            next_q = self.q(self.target, data.next_observations[rows], next_actions)  # (B,)
            y = data.rewards[rows] + c.gamma * torch.where(data.ends[rows], 0.0, next_q)  # (B,)
        observations = data.observations[rows]
        q, v = self.q(self.critic, observations, data.actions[rows]), self.value(observations)  # (B,), (B,)
        loss = F.huber_loss(q, y) + F.huber_loss(v, self.returns[rows])
        self.descend(self.critic_optimizer, loss)
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, c.polyak)
        return loss.detach()

    def improve(self, rows: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A step of the candidate against the old policy: loss, entropy, KL and clipped share."""
        observations = self.data.observations[rows]
        with torch.no_grad():
            old = self.policy.concentrations(observations)  # (B, A), (B, A)
            actions = densities.sample(*old).clamp(MARGIN, 1 - MARGIN)  # (B, A)
            advantage = self.q(self.critic, observations, actions) - self.value(observations)  # (B,)
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            advantage *= torch.where(advantage > 0, self.config.omega, 1 - self.config.omega)
            old_log_probs = densities.log_prob(*old, actions)  # (B,)
        alpha, beta = self.candidate.concentrations(observations)  # (B, A), (B, A)
        log_ratio = densities.log_prob(alpha, beta, actions) - old_log_probs  # (B,)
        loss = policy_loss(log_ratio, advantage, clip)
        self.descend(self.actor_optimizer, loss)
        with torch.no_grad():
            ratio = log_ratio.exp()
            clipped = ((ratio - 1).abs() > clip).float().mean()
            return loss.detach(), densities.entropy(alpha, beta).mean(), (ratio - 1 - log_ratio).mean(), clipped

    def descend(self, optimizer: Optimizer, loss: Tensor) -> None:
        """One step of the optimiser, its gradient's norm clipped."""
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.config.max_grad_norm)
        optimizer.step()

    def logged_next(self, rows: Tensor) -> Tensor:
        """The logged action (B, A) of the state that follows; anything after an end."""
        return self.data.actions[(rows + 1).clamp(max=len(self.data) - 1)]

    @torch.no_grad()
    def sample(self, observations: Tensor) -> Tensor:
        """Unit actions (B, A) of the old policy."""
        return densities.sample(*self.policy.concentrations(observations))

    def score(self, policy: BetaPolicy) -> float:
        """Q of the policy's mean action, which is the one taken at evaluation, over the first states; as a reward."""
        data = self.data
        first = data.observations[data.starts]  # (E, F)
        alpha, beta = policy.concentrations(first)
        return float((data.offsets + data.scale * self.q(self.critic, first, alpha / (alpha + beta))).mean())

    def q(self, critic: Ensemble, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (B,) of unit actions (B, A)."""
        return critic.forward(torch.cat([self.policy.normalise(observations), 2 * actions - 1], dim=-1))[0]

    def value(self, observations: Tensor) -> Tensor:
        """Values (B,) of observations (B, F)."""
        return self.values.forward(self.policy.normalise(observations))[0]

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B,) of the old policy, for unit actions (B, A)."""
        return densities.log_prob(*self.policy.concentrations(observations), actions)

    def metrics(self, policy_loss: float, entropy: float, kl: float, clipped: float, value_loss: float) -> Metrics:
        """One row of metrics: means over the epoch's steps, and estimates over the whole buffer."""
        data = self.data
        log_probs = in_blocks(self.log_prob, data.observations, data.actions)  # (N,)
        values = in_blocks(self.value, data.observations)  # (N,)
        return {
            "losses/policy_loss": policy_loss,
            "losses/value_loss": value_loss,
            "losses/entropy": entropy,
            "losses/approx_kl": kl,
            "losses/clipfrac": clipped,
            "losses/explained_variance": explained_variance(values, self.returns),
            **importance(log_probs - data.log_probs),
            "offline/estimated_reward": self.score(self.policy),
        }
