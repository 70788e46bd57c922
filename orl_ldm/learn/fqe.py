"""Fitted Q evaluation (Le et al. 2019) of a policy's mean action: what is evaluated is what will be replayed.

    y = r + Q'(s', E[pi(s')]);  Q <- argmin Huber(Q(s, a) - y), again and again with Q' following Q slowly

with an ensemble whose members see their own resamples of the images, without pessimism and without discount: an
estimate, not a goal. Two policies are fitted from the same start and with the same batches, so that what is chance in
it is the same for both.

Legend: M members, B batch, N transitions, E episodes, F observation features, A action dimensions.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from orl_ldm.learn.config import JudgeConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.estimates import member_weights
from orl_ldm.learn.metrics import explained_variance
from orl_ldm.learn.networks import Forked
from orl_ldm.learn.passes import in_blocks
from orl_ldm.policy import Policy
from orl_ldm.policy.beta import mean_action, to_unit
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.streams import stream

#: Share of the way that the target networks go in each step.
POLYAK = 0.01


class FittedQ:
    """What a policy gains, told by Q-functions that are fitted to `data` when it is made."""

    def __init__(self, policy: Policy, data: Dataset, config: JudgeConfig, seed: int) -> None:
        self.policy, device = policy, data.rewards.device
        self.normalise = Normaliser(policy.spec.feature_names).to(device)
        self.normalise.fit(data.observations)
        self.effects = Effects(policy.spec, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(seed, "judge", 1).integers(2**62)))
            inputs = data.observations.shape[1] + self.effects.width
            self.q = Forked(config.members, inputs, config.hidden).to(device)
        self._fit(data, config, seed)

    def _fit(self, data: Dataset, config: JudgeConfig, seed: int) -> None:
        q, target = self.q, copy.deepcopy(self.q)
        drawn = stream(seed, "judge", 1, 0).integers(len(data), size=(config.steps, config.batch_size))
        following = in_blocks(self._act, data.next_observations)  # (N, A): the policy is fixed
        weights = member_weights(data, config.members, seed)  # (M, N)
        optimizer = AdamW(q.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        for step, rows in enumerate(torch.from_numpy(drawn).to(data.rewards.device)):
            optimizer.param_groups[0]["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            with torch.no_grad():
                later = target(*self._inputs(data.next_observations[rows], following[rows]))  # (M, B)
                y = data.rewards[rows] + torch.where(data.ends[rows], 0.0, later)
            now = q(*self._inputs(data.observations[rows], data.actions[rows]))
            loss = F.huber_loss(now, y, reduction="none") * weights[:, rows]
            optimizer.zero_grad()
            loss.mean(1).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), q.parameters(), strict=True):
                    slow.lerp_(fast, POLYAK)

    @torch.no_grad()
    def gains(self, data: Dataset) -> Tensor:
        """Gains (M, E) in standard deviations from the first states of the episodes of `data`."""
        first = data.observations[data.starts]
        values: Tensor = self.q(*self._inputs(first, self._act(first)))
        return values

    @torch.no_grad()
    def explained_variance(self, data: Dataset) -> float:
        """How well what episodes of other data gained is told by the decision that ended them."""
        last = data.ends.nonzero()[:, 0]  # (E,)
        gained = torch.zeros_like(data.offsets).index_add_(0, data.episode, data.rewards)  # (E,)
        said = self.q(*self._inputs(data.observations[last], data.actions[last]))  # (M, E)
        return explained_variance(said.mean(0), gained)

    @torch.no_grad()
    def _act(self, observations: Tensor) -> Tensor:
        """The policy's unit actions (B, A)."""
        return to_unit(self.policy.spec, mean_action(self.policy, observations))

    def _inputs(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Of observations (B, F) and unit actions (B, A): what Q-functions see, and which of the actions stop (B,)."""
        return torch.cat([self.normalise(observations), self.effects(actions)], dim=-1), self.effects.stops(actions)
