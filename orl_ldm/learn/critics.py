"""The default learner: an actor that climbs a pessimistic ensemble of bootstrapped critics, clipped like PPO.

Returns of a random behaviour undervalue every plan whose later steps must be good. So the critics are bootstrapped
with the actions of the policy that is being learned, and as that leads them away from the data, they are read
pessimistically: some standard deviations below the mean of the ensemble (as REDQ, Chen et al. 2021; EDAC, An et al.
2021; MSG, Ghasemipour et al. 2022). The actor follows the critics' gradient, stays near logged actions by a weak
cloning term (as TD3+BC, Fujimoto and Gu 2021), and may move only so far from a reference that is re-anchored at the
start of every epoch (as the clip of PPO, Schulman et al. 2017; re-anchored offline as in BPPO, Zhuang et al. 2023).

    y = r - offset of the image                                                   where the episode ends,
        gamma * (mean - pessimism * std)_j Q'_j(s', a~')                          where it goes on
    critics minimise Huber(Q_j(s, a) - y), term by term
    the actor maximises, while KL(pi(s) || reference(s)) <= clip,
        (mean - actor_pessimism * std)_j Q_j(s, a~) + cloning * log pi(a | s) + seeking * gain * log pi(a* | s)

where a~ = E[pi(s)] + noise * (a - E[pi(s)]) with a ~ pi(s) reparameterised: what is evaluated later is the mean, so the
critics are asked about actions near it. Pessimism is target_pessimism, but first_pessimism for the decision that begins
an episode: going on rests on guesses of what follows, stopping on none, so that going on has to be doubted; where to
begin is a choice among plans that all rest on such guesses, and doubt would only turn it to what was tried most.

Critics see what an action does, not what it says (orl_ldm.policy.effects), and what stopping brings is told by networks
of their own, which learn from a batch of their own: it is the one thing that was seen, and guesses would only blur it.
Most episodes of an exploring behaviour are far worse than any plan that will be chosen, by many times what plans differ
in, so that Huber's loss is linear beyond a small part of that (`huber`). What is learned of an episode is its gain over
the image's other rollouts, which were good plans for some images and bad ones for others: so each image has an offset
that is learned along with the critics, and away from them (fixed effects).

A gradient finds no way from one plan to another one (stopping now, or going on) when what lies between is worse. So the
critics are also asked about some actions of which about half the dimensions are drawn at random and the others are the
mean's: a* is the best of them, and gain how much better than the mean action the critics hold it for, if at all
(choosing among candidates as EMaQ, Ghasemipour et al. 2021).

What suits an image is told in part only, so that going all the way to what is held for its best gains little over going
half way, and loses more often (docs/benchmarks.md, "How often a policy can win"). To go half way there has to be a
place to go from: one plan for all images, the one that the critics hold for best on average. It sees where in an
episode it is and nothing else, and climbs the critics of all images; whether it stops it is told by what the actor does
on average, as there the critics have their edge. The policy goes `sight` of the way from it to the actor
(orl_ldm.policy.planned).

With `dial` the reward's weights are a part of s: every transition is relabelled with weights drawn anew for each step,
and one policy serves them all (as universal value functions, Schaul et al. 2015). A critic says what an action brings
of each term, and the weights make a value of it (Abels et al. 2019): so every transition teaches all of the terms. What
pessimism takes from the value, it takes from the terms by their shares in it.

Legend: M critics, B batch, S of it where actions are sought, C candidates, N transitions, E episodes, F observation
features, P preferences (0 without dial), R terms of the reward (1 without dial), A action dimensions.
"""

import copy
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orl_ldm.learn import densities
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.metrics import Metrics, explained_variance, importance
from orl_ldm.learn.networks import Forked, pessimistic
from orl_ldm.learn.passes import in_blocks
from orl_ldm.learn.preferences import Preferences
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.policy import BetaPolicy, PlannedPolicy
from orl_ldm.policy.beta import HELD, MARGIN
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.spec import DECISION

#: How much the plan's first `t_ratio` is drawn to what the actor does on average: to the right slope, not to its top.
DRAWN = 0.1


class Critics:
    """State of a run; `epoch` does the learning."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        self.data, self.config, self.seed = data, config.critics, config.seed
        c, device = self.config, data.observations.device
        self.epochs, self.samples = c.epochs, c.steps * c.batch_size
        self.preferences = Preferences(data, config.dial)
        spec = replace(data.spec, preference_names=self.preferences.names)
        self.effects = Effects(spec, device)
        self.finals = self.effects.stops(data.actions).nonzero()[:, 0]  # transitions that stop
        #: Each episode's image by its number (E,).
        images, self.image = torch.unique(data.image, return_inverse=True)
        self.decision = spec.feature_names.index(DECISION) if DECISION in spec.feature_names else None

        self.policy: PlannedPolicy | BetaPolicy
        if self.decision is None:
            self.policy = self.actor = BetaPolicy(spec, config.hidden).to(device)
        else:
            self.policy = PlannedPolicy(spec, config.hidden, (c.first_sight, c.sight)).to(device)
            self.actor = self.policy.own
        self.actor.normalise.fit(data.observations, config.hide)
        self.reference = copy.deepcopy(self.actor)
        terms = self.preferences.gains.shape[1]
        inputs = len(spec.feature_names) + len(spec.preference_names) + self.effects.width
        self.critic = Forked(c.critics, inputs, c.critic_hidden, terms).to(device)
        self.target = copy.deepcopy(self.critic)
        self.offsets = nn.Embedding(len(images), terms, _weight=torch.zeros(len(images), terms)).to(device)
        self.offsets.requires_grad_(config.image_baseline)
        self.optimizers = {
            "actor_optimizer": Adam(self.policy.parameters(), lr=c.learning_rate, fused=True),
            "critic_optimizer": Adam(self.critic.parameters(), lr=c.critic_learning_rate, fused=True),
            "offset_optimizer": Adam(self.offsets.parameters(), lr=c.offset_learning_rate, fused=True),
        }
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.parts: dict[str, nn.Module | Optimizer] = {
            "policy": self.policy,
            "critic": self.critic,
            "target": self.target,
            "offsets": self.offsets,
            **self.optimizers,
        }

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
            observations = self.seen(drawn)  # (B, F + P)
            critic_loss = self.fit(drawn, observations, step)
            sums += torch.stack([*self.climb(observations, data.actions[drawn]), critic_loss])
            with torch.no_grad():  # the target networks follow slowly
                for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                    slow.lerp_(fast, c.polyak)
        return self.metrics(*(sums / c.steps).tolist())

    def seen(self, rows: Tensor) -> Tensor:
        """Observations (B, F + P) of transitions (B,), under weights drawn anew."""
        return torch.cat([self.data.observations[rows], self.preferences.draw(len(rows))], dim=-1)

    def fit(self, drawn: Tensor, observations: Tensor, step: int) -> Tensor:
        """One step of the critics: for going on by what was drawn (B,), for stopping by as many others."""
        c, data = self.config, self.data
        on = (~self.effects.stops(data.actions[drawn])).nonzero()[:, 0]
        goes, seen = drawn[on], observations[on]
        gains = self.preferences.gains  # (N, R)
        with torch.no_grad():  # they approach what the target networks say of the policy's own next action
            preference = seen[:, data.observations.shape[1] :]  # (B, P)
            following = torch.cat([data.next_observations[goes], preference], dim=-1)  # (B, F + P)
            next_actions = self.act(*self.policy.concentrations(following))  # (B, A)
            next_terms = self.terms(self.target, following, next_actions)  # (M, B, R)
            shares = self.preferences.shares(preference)  # (B, R)
            doubt = self.pessimism(seen) * (next_terms * shares).sum(-1).std(0)  # (B,)
            toll = doubt[:, None] * shares / shares.square().sum(-1, keepdim=True)  # (B, R) that adds up to it
            y = gains[goes] + c.gamma * torch.where(data.ends[goes, None], 0.0, next_terms.mean(0) - toll)  # (B, R)
        if len(self.finals):
            stop = self.finals[draw(self.seed, step, len(self.finals), c.batch_size, "stop").to(drawn)]
            goes, y = torch.cat([goes, stop]), torch.cat([y, gains[stop]])
            seen = torch.cat([seen, self.seen(stop)])
        common = torch.where(data.ends[goes, None], self.offsets(self.image[data.episode[goes]]), 0.0)  # (B, R)
        error = self.terms(self.critic, seen, data.actions[goes]) - (y - common)  # (M, B, R)
        loss = F.huber_loss(error, torch.zeros_like(error), delta=c.huber) / c.huber
        for optimizer in (self.optimizers["critic_optimizer"], self.optimizers["offset_optimizer"]):
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in (self.optimizers["critic_optimizer"], self.optimizers["offset_optimizer"]):
            optimizer.step()
        return loss.detach()

    def climb(self, observations: Tensor, actions: Tensor) -> Tensor:
        """One step of actor and plan: (4,) the actor's loss, entropy, KL to the reference, how often it is clipped."""
        c = self.config
        alpha, beta = self.actor.concentrations(observations)  # (B, A), (B, A)
        value = pessimistic(self.q(self.critic, observations, self.act(alpha, beta)), c.actor_pessimism)
        cloned = densities.log_prob(alpha, beta, actions)  # (B,)
        with torch.no_grad():
            kl = densities.kl(alpha, beta, *self.reference.concentrations(observations))  # (B,)
        near = kl <= c.clip
        some = slice(c.seekers)  # S of the batch
        best, gain = self.seek(observations[some], alpha[some], beta[some], actions[some])  # (S, A), (S,)
        sought = gain * densities.log_prob(alpha[some], beta[some], best)  # (S,)
        actor_loss = -((value + c.cloning * cloned) * near).mean() - c.seeking * (sought * near[some]).mean()
        loss = actor_loss + self.plan_loss(observations, alpha.detach(), beta.detach())
        self.optimizers["actor_optimizer"].zero_grad()
        loss.backward(inputs=list(self.policy.parameters()))  # type: ignore[no-untyped-call]
        self.optimizers["actor_optimizer"].step()
        entropy, clipped = densities.entropy(alpha, beta).mean(), (kl > c.clip).float().mean()
        return torch.stack([actor_loss, entropy, kl.mean(), clipped]).detach()

    def plan_loss(self, observations: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """Of the plan: what critics hold its actions for; later with the actor's `t_ratio`, which it learns.

        The actor's are what is held as well. Its concentrations are (B, A).
        """
        if not isinstance(self.policy, PlannedPolicy):
            return alpha.new_zeros(())
        plan, own, step = self.policy.plan(observations), alpha / (alpha + beta), self.effects.step
        the_actor_s = alpha + beta >= HELD / 2  # (B, A)
        apart = plan.new_zeros(())
        if step is not None:
            later = observations[:, self.decision] > 0  # (B,)
            apart = ((plan - own)[:, step].square() * torch.where(later, 1.0, DRAWN)).mean()
            the_actor_s[:, step] |= later
        return apart - self.q(self.critic, observations, torch.where(the_actor_s, own, plan)).mean()

    def pessimism(self, observations: Tensor) -> Tensor:
        """(B,) standard deviations that targets are below the mean: other ones for decisions that begin an episode."""
        c = self.config
        if self.decision is None:
            return observations.new_full((len(observations),), c.target_pessimism)
        return torch.where(observations[:, self.decision] <= 0, c.first_pessimism, c.target_pessimism)

    def terms(self, critics: Forked, observations: Tensor, actions: Tensor) -> Tensor:
        """What unit actions (B, A) bring of each term, (M, B, R)."""
        x = torch.cat([self.actor.normalise(observations), self.effects(actions)], dim=-1)
        return critics.outputs(x, self.effects.stops(actions))

    def q(self, critics: Forked, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (M, B) of unit actions (B, A) under the preferences that the observations (B, F + P) end with."""
        return (self.terms(critics, observations, actions) * self.shares(observations)).sum(-1)

    def shares(self, observations: Tensor) -> Tensor:
        """(B, R) by which terms add up to a value under the preferences that the observations (B, F + P) end with."""
        return self.preferences.shares(observations[:, self.data.observations.shape[1] :])

    def act(self, alpha: Tensor, beta: Tensor) -> Tensor:
        """Unit actions (B, A) that the critics are asked about: between the mean, taken at evaluation, and a sample."""
        mean = alpha / (alpha + beta)
        return mean + self.config.noise * (densities.sample(alpha, beta) - mean)

    @torch.no_grad()
    def seek(self, observations: Tensor, alpha: Tensor, beta: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The best (S, A) of actions around the mean and the logged ones, and its gain (S,) over the mean, or 0."""
        mean, pessimism = alpha / (alpha + beta), self.config.actor_pessimism
        drawn = torch.rand(self.config.candidates, *actions.shape, device=actions.device).clamp(MARGIN, 1 - MARGIN)
        kept = torch.rand_like(drawn) < 0.5  # so that what is right already need not be found again
        free = (alpha + beta < HELD / 2).expand_as(drawn)  # an action that is held is no candidate for anything else
        drawn = torch.cat([actions[None], torch.where(kept, mean, drawn)[1:]])
        candidates = torch.where(free, drawn, mean)  # (C, S, A)
        states = observations.repeat(len(candidates), 1)
        values = pessimistic(self.q(self.critic, states, candidates.flatten(0, 1)), pessimism)  # (C * S,)
        value, which = values.view(candidates.shape[:2]).max(0)  # (S,), (S,)
        gain = value - pessimistic(self.q(self.critic, observations, mean), pessimism)
        return candidates[which, torch.arange(len(mean), device=which.device)], gain.clamp(min=0)

    def mean(self, observations: Tensor) -> Tensor:
        """The policy's mean unit action (B, A), which is the one taken at evaluation."""
        alpha, beta = self.policy.concentrations(observations)
        return alpha / (alpha + beta)

    @torch.no_grad()
    def metrics(self, policy_loss: float, entropy: float, kl: float, clipped: float, value_loss: float) -> Metrics:
        """One row of metrics: means over the epoch's steps, and estimates over the whole buffer."""
        data, c = self.data, self.config

        def common(preferring: Tensor, image: Tensor) -> Tensor:
            """What is held for an image's own (B,), which is no part of what critics say."""
            own: Tensor = (self.offsets(image) * self.shares(preferring)).sum(-1)
            return own

        def first_values(starts: Tensor, image: Tensor) -> Tensor:
            first = self.preferences.judged(data.observations[starts])  # (B, F + P)
            q = self.q(self.critic, first, self.mean(first))
            return pessimistic(q, c.actor_pessimism) + common(first, image)  # (B,)

        def estimates(observations: Tensor, following: Tensor, actions: Tensor, image: Tensor) -> Tensor:
            now, later = self.preferences.judged(observations), self.preferences.judged(following)
            q = self.q(self.critic, now, actions).mean(0)  # (B,)
            next_q = self.q(self.target, later, self.mean(later)).mean(0)  # (B,)
            log_prob = densities.log_prob(*self.policy.concentrations(now), actions)
            return torch.stack([q, next_q, log_prob, common(now, image)], dim=-1)

        value = in_blocks(first_values, data.starts, self.image)  # (E,)
        image = self.image[data.episode]  # (N,)
        columns = in_blocks(estimates, data.observations, data.next_observations, data.actions, image)
        q, next_q, log_probs, own = columns.unbind(-1)
        y = torch.where(data.ends, data.rewards - own, data.rewards + c.gamma * next_q)  # (N,)
        return {
            "losses/policy_loss": policy_loss,
            "losses/value_loss": value_loss,
            "losses/entropy": entropy,
            "losses/approx_kl": kl,
            "losses/clipfrac": clipped,
            "losses/explained_variance": explained_variance(q, y),
            **importance(log_probs - data.log_probs),
            "offline/estimated_reward": float((data.offsets + data.scale * value).mean()),
        }


def cosine(progress: float) -> float:
    """Half a period, from 1 at progress 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))
