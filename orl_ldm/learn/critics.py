"""The default learner: an actor that climbs a pessimistic ensemble of bootstrapped critics, clipped like PPO.

Legend: M critics, B batch, S of it where actions are sought, C candidates, N transitions, E episodes, F observation
features, P preferences (0 without), R terms of the reward (1 without preferences), A action dimensions.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.optim import Adam

from orl_ldm.config import STRICT
from orl_ldm.errors import UserError
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.learner import Metrics, Parts, Values
from orl_ldm.learn.map_batched import map_batched
from orl_ldm.learn.networks import Forked, follow, lower_confidence_bound
from orl_ldm.learn.preferences import Preferences
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.policy import PlannedPolicy
from orl_ldm.policy.beta import MARGIN, distribution
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.networks import FIXED, is_first
from orl_ldm.policy.spec import DECISION

#: How strongly the plan's first `t_ratio` is drawn to the actor's average.
DRAWN = 0.1


@dataclass(frozen=True)
class CriticConfig:
    """Bootstrapped pessimistic critics and a clipped actor.

        y = r - offset of the image                                                   where the episode ends,
            gamma * (mean - target_lower_confidence_bound * std)_j Q'_j(s', a~')      where it goes on
        critics minimise Huber(Q_j(s, a) - y), term by term
        the actor maximises, while KL(pi(s) || reference(s)) <= max_kl,
            (mean - actor_lower_confidence_bound * std)_j Q_j(s, a~) + bc_weight * log pi(a | s)
            + seeking * gain * log pi(a* | s)

    with a~ = E[pi(s)] + action_smoothing * (a - E[pi(s)]), a ~ pi(s): evaluation takes the mean, so the critics are
    asked about actions near it.

    - Critics are bootstrapped with the policy's own next actions: returns of a random behaviour undervalue plans whose
      later steps must be good. As this leads away from the data, they are read at a lower confidence bound of the
      ensemble (REDQ, Chen et al. 2021; MSG, Ghasemipour et al. 2022), except in the first decision.
    - The actor moves within a KL of a reference that is re-anchored at the start of every epoch (PPO, Schulman et al.
      2017; offline as BPPO, Zhuang et al. 2023), and a weak cloning term keeps it near logged actions (TD3+BC, Fujimoto
      and Gu 2021).
    - Critics see clamped actions (orl_ldm.policy.effects). Stopping is judged by networks and batches of its own: what
      it brings was seen, what going on brings is bootstrapped.
    - Rewards are gains over the image's other rollouts. Each image has a learned offset for how good those were (fixed
      effects). The Huber loss is linear beyond small errors, since most exploring episodes are far worse than any plan.
    - A gradient does not cross a valley between two plans. So a* is the best of some candidates, half of whose
      dimensions are random, and gain its advantage over the mean action (EMaQ, Ghasemipour et al. 2021).
    - The first decision is a plan that all images share, which climbs the critics of all images.
    - With preferences, the reward's weights are part of s and drawn anew for every transition (Schaul et al. 2015).
      Critics predict terms, and the weights make a value of them (Abels et al. 2019).
    """

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 1e-3  # of actor and plan, at the start; all rates fall along a cosine
    critic_learning_rate: PositiveFloat = 2e-3
    offset_learning_rate: PositiveFloat = 1e-2
    gamma: float = 1.0
    n_critics: Annotated[int, Field(ge=2)] = 5
    critic_hidden: tuple[PositiveInt, ...] = (256, 256)
    huber: PositiveFloat = 0.1  # error from which the critics' loss is linear, in standard deviations of a term
    target_lower_confidence_bound: float = 4.0  # standard deviations below the mean of the target networks
    first_lower_confidence_bound: float = 0.0  # the same in an episode's first decision
    actor_lower_confidence_bound: float = 0.5  # standard deviations below the mean of the critics
    polyak: float = 0.005  # step of the target networks towards the critics
    action_smoothing: float = 0.1  # of the actions that critics are asked about: 0 the mean, 1 a sample
    bc_weight: float = 0.002  # weight of the log-likelihood of logged actions
    seeking: float = 20.0  # weight of the log-likelihood of the best candidate, times its gain
    n_candidates: PositiveInt = 32  # actions that are tried in a state
    n_sought: PositiveInt = 32  # states of a batch in which they are tried
    max_kl: PositiveFloat = 0.5  # largest KL to the reference, per state, in nats
    epochs: PositiveInt = 20
    steps: PositiveInt = 80  # gradient steps of an epoch
    batch_size: PositiveInt = 256

    def create(self, data: Dataset, run: RunConfig) -> "Critics":
        """A new learner. Raises UserError for a buffer without the feature that tells the first decision."""
        if DECISION not in data.spec.feature_names:
            raise UserError(f"train.algo=critics needs the feature {DECISION!r}, which the buffer does not have")
        return Critics(self, data, run)


class Critics:
    """State of a run."""

    def __init__(self, config: CriticConfig, data: Dataset, run: RunConfig) -> None:
        self.data, self.config, self.seed = data, config, run.seed
        c, device = config, data.observations.device
        self.preferences = Preferences(data, run.preference_conditioned)
        spec = replace(data.spec, preference_names=self.preferences.names)
        self.effects = Effects(spec, device)
        self.stops = self.effects.stops(data.actions).nonzero()[:, 0]  # logged transitions that stop
        #: Each episode's image by its number (E,).
        images, self.image = torch.unique(data.image, return_inverse=True)

        self.policy = PlannedPolicy(spec, run.hidden).to(device)
        self.actor = self.policy.actor
        self.actor.normalise.fit(data.observations, run.mask_features)
        self.reference = copy.deepcopy(self.actor)
        terms = self.preferences.gains.shape[1]
        inputs = len(spec.feature_names) + len(spec.preference_names) + self.effects.width
        self.critic = Forked(c.n_critics, inputs, c.critic_hidden, terms).to(device)
        self.target = copy.deepcopy(self.critic)
        self.offsets = nn.Embedding(len(images), terms, _weight=torch.zeros(len(images), terms)).to(device)
        self.optimizers = {
            "actor_optimizer": Adam(self.policy.parameters(), lr=c.learning_rate, fused=True),
            "critic_optimizer": Adam(self.critic.parameters(), lr=c.critic_learning_rate, fused=True),
            "offset_optimizer": Adam(self.offsets.parameters(), lr=c.offset_learning_rate, fused=True),
        }
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        networks = {"policy": self.policy, "critic": self.critic, "target": self.target, "offsets": self.offsets}
        self.parts: Parts = {**networks, **self.optimizers}

    def epoch(self, index: int) -> Metrics:
        """Re-anchor the reference, then `steps` gradient steps; everything random is a function of seed and step.

        Learning rates fall along a cosine, an epoch at a time (Loshchilov and Hutter 2017).
        """
        c, data = self.config, self.data
        self.reference.load_state_dict(self.actor.state_dict())
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.rates[name] * max(cosine(index / c.epochs), 0.02)
        sums = torch.zeros(5, device=data.rewards.device)
        for step in range(index * c.steps, (index + 1) * c.steps):
            seed_step(self.seed, step)
            drawn = draw(self.seed, step, len(data), c.batch_size).to(data.rewards.device)
            observations = self.observed(drawn)  # (B, F + P)
            critic_loss = self.fit(drawn, observations, step)
            sums += torch.stack([*self.climb(observations, data.actions[drawn]), critic_loss])
            follow(self.target, self.critic, c.polyak)
        names = ("policy_loss", "entropy", "approx_kl", "clipfrac", "value_loss")
        return {f"losses/{name}": total / c.steps for name, total in zip(names, sums.tolist(), strict=True)}

    def observed(self, rows: Tensor) -> Tensor:
        """Observations (B, F + P) of transitions (B,), with preferences drawn anew."""
        return torch.cat([self.data.observations[rows], self.preferences.draw(len(rows))], dim=-1)

    def fit(self, drawn: Tensor, observations: Tensor, step: int) -> Tensor:
        """One step of the critics: for going on by what was drawn (B,), for stopping by as many others."""
        c, data = self.config, self.data
        on = (~self.effects.stops(data.actions[drawn])).nonzero()[:, 0]
        rows, seen = drawn[on], observations[on]
        gains = self.preferences.gains  # (N, R)
        with torch.no_grad():  # targets: the target networks' values of the policy's own next action
            preference = seen[:, data.observations.shape[1] :]  # (B, P)
            following = torch.cat([data.next_observations[rows], preference], dim=-1)  # (B, F + P)
            next_actions = self.act(*self.policy.concentrations(following))  # (B, A)
            next_terms = self.terms(self.target, following, next_actions)  # (M, B, R)
            shares = self.preferences.shares(preference)  # (B, R)
            first = is_first(self.policy.spec, seen)  # (B,)
            bound = torch.where(first, c.first_lower_confidence_bound, c.target_lower_confidence_bound)
            doubt = bound * (next_terms * shares).sum(-1).std(0)  # (B,) of the value
            by_term = doubt[:, None] * shares / shares.square().sum(-1, keepdim=True)  # (B, R) that adds up to it
            y = gains[rows] + c.gamma * torch.where(data.ends[rows, None], 0.0, next_terms.mean(0) - by_term)  # (B, R)
        if len(self.stops):
            stop = self.stops[draw(self.seed, step, len(self.stops), c.batch_size, "stop").to(drawn)]
            rows, y = torch.cat([rows, stop]), torch.cat([y, gains[stop]])
            seen = torch.cat([seen, self.observed(stop)])
        offset = torch.where(data.ends[rows, None], self.offsets(self.image[data.episode[rows]]), 0.0)  # (B, R)
        error = self.terms(self.critic, seen, data.actions[rows]) - (y - offset)  # (M, B, R)
        loss = F.huber_loss(error, torch.zeros_like(error), delta=c.huber) / c.huber
        fitted = (self.optimizers["critic_optimizer"], self.optimizers["offset_optimizer"])
        for optimizer in fitted:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in fitted:
            optimizer.step()
        return loss.detach()

    def climb(self, observations: Tensor, actions: Tensor) -> Tensor:
        """One step of actor and plan: (4,) the actor's loss, entropy, KL to the reference, fraction that is clipped."""
        c = self.config
        alpha, beta = self.actor.concentrations(observations)  # (B, A), (B, A)
        pi = distribution(alpha, beta)
        value = lower_confidence_bound(
            self.q(self.critic, observations, self.act(alpha, beta)), c.actor_lower_confidence_bound
        )
        cloned = pi.log_prob(actions)  # (B,)
        with torch.no_grad():
            kl = kl_divergence(pi, distribution(*self.reference.concentrations(observations)))  # (B,)
        near = kl <= c.max_kl
        some = slice(c.n_sought)  # S of the batch
        best, gain = self.seek(observations[some], alpha[some], beta[some], actions[some])  # (S, A), (S,)
        sought = gain * distribution(alpha[some], beta[some]).log_prob(best)  # (S,)
        actor_loss = -((value + c.bc_weight * cloned) * near).mean() - c.seeking * (sought * near[some]).mean()
        loss = actor_loss + self.plan_loss(observations, alpha.detach(), beta.detach())
        self.optimizers["actor_optimizer"].zero_grad()
        loss.backward(inputs=list(self.policy.parameters()))  # type: ignore[no-untyped-call]
        self.optimizers["actor_optimizer"].step()
        entropy, clipped = pi.entropy().mean(), (kl > c.max_kl).float().mean()
        return torch.stack([actor_loss, entropy, kl.mean(), clipped]).detach()

    def plan_loss(self, observations: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """The plan's loss: minus the critics' value of its actions.

        In later decisions the critics see the actor's `t_ratio`, which the plan is drawn to; and its fixed actions
        always. The actor's concentrations are (B, A).
        """
        plan, own, stop = self.policy.plan(observations), alpha / (alpha + beta), self.effects.stop_index
        by_actor = alpha + beta >= FIXED / 2  # (B, A)
        apart = plan.new_zeros(())
        if stop is not None:
            later = ~is_first(self.policy.spec, observations)  # (B,)
            apart = ((plan - own)[:, stop].square() * torch.where(later, 1.0, DRAWN)).mean()
            by_actor[:, stop] |= later
        return apart - self.q(self.critic, observations, torch.where(by_actor, own, plan)).mean()

    def terms(self, critics: Forked, observations: Tensor, actions: Tensor) -> Tensor:
        """Predicted terms (M, B, R) of unit actions (B, A)."""
        x = torch.cat([self.actor.normalise(observations), self.effects(actions)], dim=-1)
        return critics.outputs(x, self.effects.stops(actions))

    def q(self, critics: Forked, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (M, B) of unit actions (B, A) under the preferences that the observations (B, F + P) end with."""
        return (self.terms(critics, observations, actions) * self.shares(observations)).sum(-1)

    def shares(self, observations: Tensor) -> Tensor:
        """(B, R) by which terms add up to a value under the preferences that the observations (B, F + P) end with."""
        return self.preferences.shares(observations[:, self.data.observations.shape[1] :])

    def act(self, alpha: Tensor, beta: Tensor) -> Tensor:
        """Unit actions (B, A) that the critics are asked about: between the mean and a sample."""
        mean = alpha / (alpha + beta)
        return mean + self.config.action_smoothing * (distribution(alpha, beta).rsample() - mean)

    @torch.no_grad()
    def seek(self, observations: Tensor, alpha: Tensor, beta: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The best (S, A) of actions around the mean and the logged ones, and its gain (S,) over the mean, or 0."""
        mean, bound = alpha / (alpha + beta), self.config.actor_lower_confidence_bound
        drawn = torch.rand(self.config.n_candidates, *actions.shape, device=actions.device).clamp(MARGIN, 1 - MARGIN)
        kept = torch.rand_like(drawn) < 0.5  # so that what is right already need not be found again
        free = (alpha + beta < FIXED / 2).expand_as(drawn)  # fixed actions stay as they are
        drawn = torch.cat([actions[None], torch.where(kept, mean, drawn)[1:]])
        candidates = torch.where(free, drawn, mean)  # (C, S, A)
        states = observations.repeat(len(candidates), 1)
        values = lower_confidence_bound(self.q(self.critic, states, candidates.flatten(0, 1)), bound)  # (C * S,)
        value, which = values.view(candidates.shape[:2]).max(0)  # (S,), (S,)
        gain = value - lower_confidence_bound(self.q(self.critic, observations, mean), bound)
        return candidates[which, torch.arange(len(mean), device=which.device)], gain.clamp(min=0)

    def mean(self, observations: Tensor) -> Tensor:
        """The policy's mean unit action (B, A)."""
        alpha, beta = self.policy.concentrations(observations)
        return alpha / (alpha + beta)

    @torch.no_grad()
    def values(self) -> Values:
        """Critics and their targets, without pessimism; and, with it, the policy's value in the first states."""
        data, c = self.data, self.config

        def offset(preferring: Tensor, image: Tensor) -> Tensor:
            """The offsets (B,) of images (B,), which critics leave out."""
            own: Tensor = (self.offsets(image) * self.shares(preferring)).sum(-1)
            return own

        def first_values(starts: Tensor, image: Tensor) -> Tensor:
            first = self.preferences.judged(data.observations[starts])  # (B, F + P)
            q = self.q(self.critic, first, self.mean(first))
            return lower_confidence_bound(q, c.actor_lower_confidence_bound) + offset(first, image)  # (B,)

        def estimates(observations: Tensor, following: Tensor, actions: Tensor, image: Tensor) -> Tensor:
            now, later = self.preferences.judged(observations), self.preferences.judged(following)
            q = self.q(self.critic, now, actions).mean(0)  # (B,)
            next_q = self.q(self.target, later, self.mean(later)).mean(0)  # (B,)
            return torch.stack([q, next_q, offset(now, image)], dim=-1)

        columns = (data.observations, data.next_observations, data.actions, self.image[data.episode])
        q, next_q, own = map_batched(estimates, *columns).unbind(-1)
        target = torch.where(data.ends, data.rewards - own, data.rewards + c.gamma * next_q)  # (N,)
        return Values(q, target, map_batched(first_values, data.starts, self.image))


def cosine(progress: float) -> float:
    """Half a period, from 1 at progress 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))
