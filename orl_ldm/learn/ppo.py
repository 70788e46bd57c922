"""Offline PPO as in Lyu 2025, Table 1: the ratio is taken to the *logged* behaviour.

PPO (Schulman et al. 2017) with generalised advantage estimates (Schulman et al. 2016), the details as in CleanRL. As
the behaviour never moves, the clip stops the policy near it: on a broad behaviour it improves a little and stops. It is
here as the paper's method and as a baseline for `critics`.

    ratio = pi(a | s) / behaviour(a | s)
    minimise  -min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) + value_coefficient * value loss
              - entropy_coefficient * entropy

Legend: B minibatch, N transitions, F observation features, A action dimensions.
"""

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orl_ldm.learn import densities
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.metrics import Metrics, explained_variance, importance, weighted_reward
from orl_ldm.learn.networks import Ensemble
from orl_ldm.learn.passes import in_blocks
from orl_ldm.learn.randomness import draw, shuffle
from orl_ldm.learn.returns import gae
from orl_ldm.policy import BetaPolicy


def policy_loss(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The clipped surrogate (Schulman et al. 2017, equation 7), to be minimised, of (B,) and (B,)."""
    ratio = log_ratio.exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, the larger of that of the values and of the values clipped to near the old ones."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)  # (B,)
    return 0.5 * torch.max((values - returns).square(), (clipped - returns).square()).mean()


class PPO:
    """State of a run; `epoch` does the learning."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        self.data, self.config, self.seed = data, config.ppo, config.seed
        self.epochs = self.config.epochs
        self.samples = self.config.draws * self.config.passes
        device = data.observations.device
        self.policy = BetaPolicy(data.spec, config.hidden).to(device)
        self.policy.set_normalisation(data.observations, config.hide)
        self.values = Ensemble(1, data.observations.shape[1], config.hidden).to(device)
        self.parameters = [*self.policy.parameters(), *self.values.parameters()]
        self.optimizer = Adam(self.parameters, lr=self.config.learning_rate, eps=1e-5, fused=True)
        self.parts: dict[str, nn.Module | Optimizer] = {
            "policy": self.policy,
            "values": self.values,
            "optimizer": self.optimizer,
        }

    def epoch(self, index: int) -> Metrics:
        """Advantages of the whole buffer, one draw from it, `passes` over the draw."""
        c, data = self.config, self.data
        with torch.no_grad():
            old_values = in_blocks(self.value, data.observations)  # (N,)
            advantages = gae(data.rewards, old_values, data.ends, c.gamma, c.gae_lambda)  # (N,)
            returns = advantages + old_values
        drawn = draw(self.seed, index, len(data), c.draws)
        sums, updates = torch.zeros(5, device=data.rewards.device), 0
        for turn in range(c.passes):
            order = drawn[shuffle(self.seed, index, turn, c.draws)].to(data.rewards.device)
            for rows in torch.split(order, c.batch_size):
                alpha, beta = self.policy.concentrations(data.observations[rows])  # (B, A), (B, A)
                log_ratio = densities.log_prob(alpha, beta, data.actions[rows]) - data.log_probs[rows]  # (B,)
                advantage = advantages[rows]
                if len(rows) > 1:
                    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                pg_loss = policy_loss(log_ratio, advantage, c.clip)
                v_loss = value_loss(self.value(data.observations[rows]), old_values[rows], returns[rows], c.clip)
                entropy = densities.entropy(alpha, beta).mean()
                loss = pg_loss + c.value_coefficient * v_loss - c.entropy_coefficient * entropy
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.parameters, c.max_grad_norm)
                self.optimizer.step()
                with torch.no_grad():
                    ratio = log_ratio.exp()
                    kl = (ratio - 1 - log_ratio).mean()  # Schulman's low-variance estimate
                    clipped = ((ratio - 1).abs() > c.clip).float().mean()
                    sums += torch.stack([pg_loss, v_loss, entropy, kl, clipped])
                updates += 1
        return self.metrics(old_values, returns, *(sums / updates).tolist())

    def value(self, observations: Tensor) -> Tensor:
        """Values (B,) of observations (B, F)."""
        x = ((observations - self.policy.obs_mean) / self.policy.obs_std).clamp(-10, 10)
        return self.values.forward(x)[0]

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B,) of the policy, for unit actions (B, A)."""
        return densities.log_prob(*self.policy.concentrations(observations), actions)

    @torch.no_grad()
    def metrics(
        self, values: Tensor, returns: Tensor, pg_loss: float, v_loss: float, entropy: float, kl: float, clipped: float
    ) -> Metrics:
        """One row of metrics: means over the epoch's updates, and estimates over the whole buffer."""
        data = self.data
        log_ratio = in_blocks(self.log_prob, data.observations, data.actions) - data.log_probs  # (N,)
        learned = data.episode_rewards - data.offsets  # (E,) their baseline aside: it would only add variance
        return {
            "losses/policy_loss": pg_loss,
            "losses/value_loss": v_loss,
            "losses/entropy": entropy,
            "losses/approx_kl": kl,
            "losses/clipfrac": clipped,
            "losses/explained_variance": explained_variance(values, returns),
            **importance(log_ratio),
            "offline/estimated_reward": weighted_reward(log_ratio, data.episode, learned) + float(data.offsets.mean()),
        }
