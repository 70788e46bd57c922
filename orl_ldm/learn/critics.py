"""The default learner: an actor that climbs a pessimistic ensemble of bootstrapped critics, clipped like PPO.

Returns of a random behaviour undervalue every plan whose later steps must be good. So the critics are bootstrapped
with the actions of the policy that is being learned, and as that leads them away from the data, they are read
pessimistically: some standard deviations below the mean of the ensemble (as REDQ, Chen et al. 2021; EDAC, An et al.
2021; MSG, Ghasemipour et al. 2022). The actor follows the critics' gradient, stays near logged actions by a weak
cloning term (as TD3+BC, Fujimoto and Gu 2021), and may move only so far from a reference that is re-anchored at the
start of every epoch (as the clip of PPO, Schulman et al. 2017; re-anchored offline as in BPPO, Zhuang et al. 2023).

    y = r + gamma * (mean - pessimism * std)_j Q'_j(s', a~')
    critics minimise Huber(Q_j(s, a) - y), term by term
    the actor maximises, while KL(pi(s) || reference(s)) <= clip,
        (mean - actor_pessimism * std)_j Q_j(s, a~) + cloning * log pi(a | s) + seeking * gain * log pi(a* | s)

where a~ = E[pi(s)] + noise * (a - E[pi(s)]) with a ~ pi(s) reparameterised: what is evaluated later is the mean, so the
critics are asked about actions near it. Pessimism is target_pessimism, but first_pessimism for the decision that begins
an episode: going on rests on guesses of what follows, stopping on none, so that going on has to be doubted; where to
begin is a choice among plans that all rest on such guesses, and doubt would only turn it to what was tried most.
Critics see what an action does, not what it says (orl_ldm.policy.effects). Most episodes of an exploring behaviour are
far worse than any plan that will be chosen, by many times what plans differ in, so that Huber's loss is linear beyond a
small part of that (`huber`).

What is learned of an episode is its gain over the image's other rollouts, which were good plans for some images and bad
ones for others. From the second epoch on, what the critics leave of the gains of an image on average is taken for that
offset, and away from them (fixed effects, fitted in turns with the critics: backfitting, Breiman and Friedman 1985).

A gradient finds no way from one plan to another one (stopping now, or going on) when what lies between is worse. So the
critics are also asked about some actions of which about half the dimensions are drawn at random and the others are the
mean's: a* is the best of them, and gain how much better than the mean action the critics hold it for, if at all
(choosing among candidates as EMaQ, Ghasemipour et al. 2021).

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
from orl_ldm.learn.networks import Ensemble, pessimistic
from orl_ldm.learn.passes import in_blocks
from orl_ldm.learn.preferences import Preferences
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.policy import BetaPolicy
from orl_ldm.policy.beta import HELD, MARGIN
from orl_ldm.policy.effects import Effects
from orl_ldm.policy.spec import DECISION


class Critics:
    """State of a run; `epoch` does the learning."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        self.data, self.config, self.seed = data, config.critics, config.seed
        self.epochs = self.config.epochs
        self.samples = self.config.steps * self.config.batch_size
        device = data.observations.device
        self.preferences = Preferences(data, config.dial)
        spec = replace(data.spec, preference_names=self.preferences.names)
        self.effects = Effects(spec, device)
        inputs = len(spec.feature_names) + len(spec.preference_names) + self.effects.width
        self.fixed_effects = config.image_baseline
        #: Each episode's image by its number (E,), and how many episodes each image has.
        _, self.image, self.rollouts = torch.unique(data.image, return_inverse=True, return_counts=True)
        self.policy = BetaPolicy(spec, config.hidden).to(device)
        self.policy.normalise.fit(data.observations, config.hide)
        self.reference = copy.deepcopy(self.policy)
        terms = self.preferences.gains.shape[1]
        self.critic = Ensemble(self.config.critics, inputs, self.config.critic_hidden, terms).to(device)
        self.target = copy.deepcopy(self.critic)
        self.actor_optimizer = Adam(self.policy.parameters(), lr=self.config.learning_rate, fused=True)
        self.critic_optimizer = Adam(self.critic.parameters(), lr=self.config.learning_rate, fused=True)
        self.parts: dict[str, nn.Module | Optimizer] = {
            "policy": self.policy,
            "critic": self.critic,
            "target": self.target,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def epoch(self, index: int) -> Metrics:
        """Re-anchor the reference, then `steps` gradient steps; everything random is a function of seed and step.

        Learning rates fall along a cosine, an epoch at a time (Loshchilov and Hutter 2017).
        """
        c, data = self.config, self.data
        self.reference.load_state_dict(self.policy.state_dict())
        rate = c.learning_rate * max(cosine(index / c.epochs), 0.02)
        for group in (*self.actor_optimizer.param_groups, *self.critic_optimizer.param_groups):
            group["lr"] = rate
        gains = self.gains() if index and self.fixed_effects else self.preferences.gains  # (N, R)
        sums = torch.zeros(5, device=data.rewards.device)
        for step in range(index * c.steps, (index + 1) * c.steps):
            seed_step(self.seed, step)
            rows = draw(self.seed, step, len(data), c.batch_size).to(data.rewards.device)
            preference = self.preferences.draw(len(rows))  # (B, P)
            observations = torch.cat([data.observations[rows], preference], dim=-1)  # (B, F + P)
            actions = data.actions[rows]  # (B, A)

            # 1. The critics approach what the target networks say of the policy's own next action.
            with torch.no_grad():
                following = torch.cat([data.next_observations[rows], preference], dim=-1)  # (B, F + P)
                next_actions = self.act(*self.policy.concentrations(following))  # (B, A)
                next_terms = self.terms(self.target, following, next_actions)  # (M, B, R)
                shares = self.preferences.shares(preference)  # (B, R)
                doubt = self.pessimism(data.observations[rows]) * (next_terms * shares).sum(-1).std(0)  # (B,)
                toll = doubt[:, None] * shares / shares.square().sum(-1, keepdim=True)  # (B, R) that adds up to it
                ends = data.ends[rows, None]
                y = gains[rows] + c.gamma * torch.where(ends, 0.0, next_terms.mean(0) - toll)  # (B, R)
            q = self.terms(self.critic, observations, actions)  # (M, B, R)
            critic_loss = F.huber_loss(q, y.expand_as(q), delta=c.huber) / c.huber
            self.critic_optimizer.zero_grad()
            critic_loss.backward()  # type: ignore[no-untyped-call]
            self.critic_optimizer.step()

            # 2. The actor climbs the critics wherever it is still near the reference.
            alpha, beta = self.policy.concentrations(observations)  # (B, A), (B, A)
            value = pessimistic(self.q(self.critic, observations, self.act(alpha, beta)), c.actor_pessimism)
            cloned = densities.log_prob(alpha, beta, actions)  # (B,)
            with torch.no_grad():
                kl = densities.kl(alpha, beta, *self.reference.concentrations(observations))  # (B,)
            near = kl <= c.clip
            some = slice(c.seekers)  # S of the batch
            best, gain = self.seek(observations[some], alpha[some], beta[some], actions[some])  # (S, A), (S,)
            sought = gain * densities.log_prob(alpha[some], beta[some], best)  # (S,)
            actor_loss = -((value + c.cloning * cloned) * near).mean() - c.seeking * (sought * near[some]).mean()
            self.actor_optimizer.zero_grad()
            actor_loss.backward(inputs=list(self.policy.parameters()))  # type: ignore[no-untyped-call]
            self.actor_optimizer.step()

            # 3. The target networks follow slowly.
            with torch.no_grad():
                for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                    slow.lerp_(fast, c.polyak)
            entropy, clipped = densities.entropy(alpha, beta).mean(), (kl > c.clip).float().mean()
            sums += torch.stack([actor_loss, critic_loss, entropy, kl.mean(), clipped]).detach()
        return self.metrics(*(sums / c.steps).tolist())

    def pessimism(self, observations: Tensor) -> Tensor:
        """(B,) standard deviations that targets are below the mean: other ones for decisions that begin an episode."""
        c, names = self.config, self.data.spec.feature_names
        if DECISION not in names:
            return observations.new_full((len(observations),), c.target_pessimism)
        first = observations[:, names.index(DECISION)] <= 0
        return torch.where(first, c.first_pessimism, c.target_pessimism)

    def terms(self, critics: Ensemble, observations: Tensor, actions: Tensor) -> Tensor:
        """What unit actions (B, A) bring of each term, (M, B, R)."""
        return critics.outputs(torch.cat([self.policy.normalise(observations), self.effects(actions)], dim=-1))

    def q(self, critics: Ensemble, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (M, B) of unit actions (B, A) under the preferences that the observations (B, F + P) end with."""
        shares = self.preferences.shares(observations[:, self.data.observations.shape[1] :])  # (B, R)
        return (self.terms(critics, observations, actions) * shares).sum(-1)

    @torch.no_grad()
    def gains(self) -> Tensor:
        """Gains (N, R) without each image's offset, on the last transitions of episodes."""
        data, gains = self.data, self.preferences.gains.clone()
        last = data.ends.nonzero()[:, 0]  # (E,)

        def told(rows: Tensor) -> Tensor:
            seen = self.preferences.judged(data.observations[rows])  # (B, F + P)
            return self.terms(self.critic, seen, data.actions[rows]).mean(0)  # (B, R)

        left = gains[last] - in_blocks(told, last)  # (E, R)
        sums = left.new_zeros(len(self.rollouts), left.shape[1]).index_add_(0, self.image, left)
        gains[last] -= (sums / self.rollouts[:, None])[self.image]
        return gains

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
    def metrics(self, policy_loss: float, value_loss: float, entropy: float, kl: float, clipped: float) -> Metrics:
        """One row of metrics: means over the epoch's steps, and estimates over the whole buffer."""
        data, c = self.data, self.config

        def first_values(starts: Tensor) -> Tensor:
            first = self.preferences.judged(data.observations[starts])  # (B, F + P)
            return pessimistic(self.q(self.critic, first, self.mean(first)), c.actor_pessimism)  # (B,)

        def estimates(observations: Tensor, following: Tensor, actions: Tensor) -> Tensor:
            now, later = self.preferences.judged(observations), self.preferences.judged(following)
            q = self.q(self.critic, now, actions).mean(0)  # (B,)
            next_q = self.q(self.target, later, self.mean(later)).mean(0)  # (B,)
            return torch.stack([q, next_q, densities.log_prob(*self.policy.concentrations(now), actions)], dim=-1)

        value = in_blocks(first_values, data.starts)  # (E,)
        q, next_q, log_probs = in_blocks(estimates, data.observations, data.next_observations, data.actions).unbind(-1)
        y = data.rewards + c.gamma * torch.where(data.ends, 0.0, next_q)  # (N,)
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
