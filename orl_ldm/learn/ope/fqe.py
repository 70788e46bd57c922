"""Fitted Q evaluation (Le et al. 2019) of a policy's mean action, which is the one that evaluation takes.

    y = r + Q'(s', E[pi(s')]);  Q <- argmin Huber(Q(s, a) - y), again and again with Q' following Q slowly

The members of an ensemble see their own resamples of the images. There is no pessimism and no discount: this is an
estimate, not a goal. All policies are fitted from the same initial weights with the same batches, so that chance is the
same for all.

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
from orl_ldm.learn.map_batched import map_batched
from orl_ldm.learn.metrics import explained_variance
from orl_ldm.learn.networks import Forked, follow
from orl_ldm.learn.ope.estimates import member_weights
from orl_ldm.policy import Policy
from orl_ldm.policy.beta import mean_action, to_unit
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.streams import stream

#: Step of the target networks towards the networks.
POLYAK = 0.01


class FittedQ:
    """Q-functions of a policy, fitted to `data` at construction."""

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
        following = map_batched(self._act, data.next_observations)  # (N, A): the policy is fixed
        weights = member_weights(data, config.members, seed)  # (M, N)
        optimizer = AdamW(q.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        for step, rows in enumerate(torch.from_numpy(drawn).to(data.rewards.device)):
            optimizer.param_groups[0]["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            with torch.no_grad():
                later = target(*self._inputs(data.next_observations[rows], following[rows]))  # (M, B)
                y = data.rewards[rows] + torch.where(data.ends[rows], 0.0, later)  # (M, B)
            now = q(*self._inputs(data.observations[rows], data.actions[rows]))  # (M, B)
            loss = F.huber_loss(now, y, reduction="none") * weights[:, rows]
            optimizer.zero_grad()
            loss.mean(1).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            follow(target, q, POLYAK)

    @torch.no_grad()
    def gains(self, data: Dataset) -> Tensor:
        """The policy's gains (M, E) over the baselines of the episodes of `data`, in units of its `scale`."""
        first = data.observations[data.starts]
        values: Tensor = self.q(*self._inputs(first, self._act(first)))
        return values

    @torch.no_grad()
    def explained_variance(self, data: Dataset) -> float:
        """Explained variance of the gains of other episodes, predicted from their last decisions."""
        last = data.ends.nonzero()[:, 0]  # (E,)
        predicted = self.q(*self._inputs(data.observations[last], data.actions[last]))  # (M, E)
        return explained_variance(predicted.mean(0), data.rewards[last])

    @torch.no_grad()
    def _act(self, observations: Tensor) -> Tensor:
        """The policy's mean unit actions (B, A)."""
        return to_unit(self.policy.spec, mean_action(self.policy, observations))

    def _inputs(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Observations (B, F) and unit actions (B, A) -> inputs of Q-functions, and which of the actions stop (B,)."""
        return torch.cat([self.normalise(observations), self.effects(actions)], dim=-1), self.effects.stops(actions)
