"""Offline PPO as in Lyu 2025, Table 1: the ratio is taken to the *logged* behaviour.

PPO (Schulman et al. 2017) with generalised advantage estimates (Schulman et al. 2016), the details as in CleanRL. As
the behaviour never moves, the clip stops the policy near it: on a broad behaviour it improves a little and stops. It is
here as the paper's method and as a baseline for `critics`.

The advantages are GAE's, or V-trace's (Espeholt et al. 2018), which corrects for what the policy would do otherwise
than the behaviour. The update itself is in `actor_critic`.

Legend: N transitions.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orl_ldm.errors import UserError
from orl_ldm.learn import densities
from orl_ldm.learn.actor_critic import ActorCritic, Batch
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.metrics import Metrics, explained_variance, importance, weighted_reward
from orl_ldm.learn.passes import in_blocks
from orl_ldm.learn.randomness import draw, shuffle
from orl_ldm.learn.returns import gae, vtrace
from orl_ldm.policy import BetaPolicy


class PPO:
    """State of a run; `epoch` does the learning. Raises UserError when actions are held."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        if data.spec.held or data.spec.held_first:
            raise UserError(
                "train.hold does not go with train.algo=ppo: ratios to the logged behaviour take all actions"
            )
        self.data, self.config, self.seed = data, config.ppo, config.seed
        self.epochs = self.config.epochs
        self.samples = self.config.draws * self.config.passes
        self.policy = BetaPolicy(data.spec, config.hidden).to(data.observations.device)
        self.policy.normalise.fit(data.observations, config.hide)
        self.networks = ActorCritic(self.policy, self.config)
        self.parts: dict[str, nn.Module | Optimizer] = self.networks.parts

    def epoch(self, index: int) -> Metrics:
        """Advantages of the whole buffer, one draw from it, `passes` over the draw."""
        c, data = self.config, self.data
        values = in_blocks(self.value, data.observations)  # (N,)
        advantages, returns = self.advantages(values)
        rows = draw(self.seed, index, len(data), c.draws).to(data.rewards.device)
        x, logs = self.policy.normalise(data.observations[rows]), densities.logs(data.actions[rows])
        batch = Batch(x, logs, data.log_probs[rows], advantages[rows], values[rows], returns[rows])
        orders = [shuffle(self.seed, index, turn, c.draws).to(rows.device) for turn in range(c.passes)]
        losses = self.networks.learn(batch, orders)
        log_ratio = self.log_ratio()  # (N,)
        learned = data.episode_rewards - data.offsets  # (E,) their baseline aside: it would only add variance
        return {
            **losses,
            "losses/explained_variance": explained_variance(values, returns),
            **importance(log_ratio),
            "offline/estimated_reward": weighted_reward(log_ratio, data.episode, learned) + float(data.offsets.mean()),
        }

    def advantages(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages (N,) and what the values (N,) should have been (N,)."""
        c, data = self.config, self.data
        if c.advantage == "vtrace":
            return vtrace(data.rewards, values, self.log_ratio(), data.ends, c.gamma, c.rho_bar, c.c_bar)
        advantages = gae(data.rewards, values, data.ends, c.gamma, c.gae_lambda)
        return advantages, advantages + values

    def value(self, observations: Tensor) -> Tensor:
        """Values (B,) of observations (B, F)."""
        return self.networks.value(self.policy.normalise(observations))

    @torch.no_grad()
    def log_ratio(self) -> Tensor:
        """(N,) log policy - log behaviour."""
        return in_blocks(self.log_prob, self.data.observations, self.data.actions) - self.data.log_probs

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B,) of the policy, for unit actions (B, A)."""
        return densities.log_prob(*self.policy.concentrations(observations), actions)
