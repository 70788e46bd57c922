"""A policy's reward by simulation: an ensemble learns what follows a decision, and the policy is played in it.

Model-based off-policy evaluation (Voloshin et al. 2021; Fu et al. 2021 call it MB). One fit serves any number of
policies, and there is nothing to bootstrap, which suits episodes of a few decisions. Each member learns from
(s, a), for its own resample of the images,

    s' - s           by squared error, where the episode went on
    whether it ended by cross-entropy
    the gain         by Huber's loss, where it ended

and plays the policy's mean action, which is what is evaluated later. An end of probability p counts its gain by p, and
the episode goes on with what is left of its weight.

Legend: M members, B batch, N transitions, F observation features, A action dimensions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from orl_ldm.learn.config import JudgeConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.estimates import Estimate, member_weights, of_members
from orl_ldm.learn.metrics import explained_variance
from orl_ldm.learn.networks import Ensemble
from orl_ldm.policy import Policy
from orl_ldm.policy.beta import mean_action, to_unit
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.normaliser import Normaliser
from orl_ldm.streams import stream

#: An episode whose weight has fallen below this has ended.
OVER = 0.01


#: So many episodes are played at a time: each needs memory for all members.
PLAYED = 256

#: So many transitions tell how large changes are.
SAMPLE = 4096


class Model(nn.Module):
    """An ensemble of simulators of the decision process behind a buffer."""

    change: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, data: Dataset, config: JudgeConfig, seed: int) -> None:
        super().__init__()
        self.config, self.features = config, data.observations.shape[1]
        self.horizon = int(torch.bincount(data.episode).max())
        self.effects = Effects(data.spec, data.rewards.device)
        inputs = self.features + self.effects.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(seed, "judge", 0).integers(2**62)))
            self.net = Ensemble(config.members, inputs, config.hidden, self.features + 2).to(data.rewards.device)
        self.normalise = Normaliser(data.spec.feature_names).to(data.rewards.device)
        self.normalise.fit(data.observations)
        some = torch.linspace(0, len(data) - 1, min(len(data), SAMPLE), device=data.rewards.device).long()
        before, after = data.observations[some], data.next_observations[some]
        inner = (after - before)[~data.ends[some]]
        self.register_buffer("change", positive(inner.std(0)) if len(inner) > 1 else torch.ones_like(before[0]))
        self.register_buffer("low", data.observations.amin(0))
        self.register_buffer("high", data.observations.amax(0))

    def fit(self, data: Dataset, seed: int) -> None:
        """Learn from a dataset; every random number is a function of the seed."""
        c, device = self.config, data.rewards.device
        weights = member_weights(data, c.members, seed)  # (M, N)
        gains = torch.zeros_like(data.rewards).index_add_(0, last(data), returns(data))
        optimizer = AdamW(self.net.parameters(), lr=c.learning_rate, weight_decay=c.weight_decay, fused=True)
        for step in range(c.steps):
            optimizer.param_groups[0]["lr"] = c.learning_rate * 0.5 * (1 + math.cos(math.pi * step / c.steps))
            rows = torch.from_numpy(stream(seed, "judge", 0, step).integers(len(data), size=c.batch_size)).to(device)
            before, actions, is_last = data.observations[rows], data.actions[rows], data.ends[rows]
            changes = (data.next_observations[rows] - before) / self.change  # (B, F)
            change, end, gain = self.split(self.net.outputs(self.inputs(before, actions)))
            ended = is_last.to(before).expand_as(end)
            loss = F.binary_cross_entropy_with_logits(end, ended, reduction="none")
            loss = loss + ended * F.huber_loss(gain, gains[rows].expand_as(gain), reduction="none")
            loss = loss + ~is_last * (change - changes).square().mean(-1)
            optimizer.zero_grad()
            (loss * weights[:, rows]).mean(1).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def inputs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(..., F + width of the effects) of observations (..., F) and unit actions (..., A)."""
        return torch.cat([self.normalise(observations), self.effects(actions)], dim=-1)

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(change (M, B, F) in standard deviations, logit (M, B) of an end, gain (M, B))."""
        return outputs[..., : self.features], outputs[..., -2], outputs[..., -1]

    @torch.no_grad()
    def play(self, policy: Policy, observations: Tensor, first: Tensor | None = None) -> Tensor:
        """Gains (M, B) in standard deviations of the policy's mean action from states (B, F).

        `first` are unit actions (B, A) that are taken there in place of the policy's: gains are then of both.
        """
        s = observations.expand(self.config.members, *observations.shape)  # (M, B, F)
        weight, total = torch.ones_like(s[..., 0]), torch.zeros_like(s[..., 0])
        for step in range(self.horizon):
            if first is None or step:
                a = to_unit(policy.spec, mean_action(policy, s.flatten(0, 1))).view(*s.shape[:-1], -1)  # (M, B, A)
            else:
                a = first.expand(self.config.members, *first.shape)
            change, end, gain = self.split(self.net.outputs(self.inputs(s, a)))
            p = torch.ones_like(end) if step == self.horizon - 1 else end.sigmoid()
            total = total + weight * p * gain
            weight = weight * (1 - p)
            if float(weight.max()) < OVER:
                break
            s = (s + change * self.change).clamp(self.low, self.high)
        return total

    @torch.no_grad()
    def explained_variance(self, data: Dataset) -> float:
        """How well gains are predicted from the last decision of each episode of other data."""
        rows = last(data)
        _, _, gain = self.split(self.net.outputs(self.inputs(data.observations[rows], data.actions[rows])))
        return explained_variance(gain.mean(0), returns(data))


def played(model: Model, policy: Policy, data: Dataset, rows: Tensor, first: bool = False) -> Tensor:
    """Gains (M, B) in standard deviations from rows (B,) of `data`; with `first` the logged action is taken there."""
    return torch.cat(
        [
            model.play(policy, data.observations[some], data.actions[some] if first else None)
            for some in torch.split(rows, PLAYED)
        ],
        dim=1,
    )


def estimate(model: Model, policy: Policy, data: Dataset, seed: int) -> Estimate:
    """The policy's reward on the images of `data`."""
    return of_members(played(model, policy, data, data.starts), data, seed)


def returns(data: Dataset) -> Tensor:
    """(E,) undiscounted sum of what is learned from in each episode."""
    return torch.zeros_like(data.offsets).index_add_(0, data.episode, data.rewards)


def last(data: Dataset) -> Tensor:
    """(E,) last transition of each episode."""
    return data.ends.nonzero()[:, 0]


def positive(std: Tensor) -> Tensor:
    """Standard deviations, those of constants replaced by 1."""
    return torch.where(std > 1e-6, std, torch.ones_like(std))
