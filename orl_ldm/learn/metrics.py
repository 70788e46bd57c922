"""The row of metrics of an epoch, under CleanRL's names where it has one, and alarms about it.

Legend: N transitions, E episodes, A action dimensions.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from orl_ldm.learn.data import Dataset
from orl_ldm.learn.learner import Learner, Metrics
from orl_ldm.learn.map_batched import map_batched
from orl_ldm.policy import with_preference
from orl_ldm.policy.beta import distribution

#: Metric -> (when it is alarming, what it means).
ALARMS: dict[str, tuple[Callable[[float], bool], str]] = {
    "losses/approx_kl": (lambda x: x > 1.5, "the policy moves too fast; lower the learning rate"),
    "losses/clipfrac": (lambda x: x > 0.9, "nearly every update is clipped; lower the learning rate or widen the clip"),
    "losses/explained_variance": (lambda x: x < -1.0, "the values are far from what they predict; collect more"),
    "offline/effective_sample_size": (
        lambda x: x < 0.002,
        "hardly any logged action is like the policy's; doubt its estimated reward, or collect a round with it",
    ),
    "policy/saturation": (
        lambda x: x > 0.5,
        "most mean actions of one dimension lie at its bound; widen the action's range or look at the buffer",
    ),
    "policy/at_limit": (
        lambda x: x > 0.9,
        "one dimension's distribution is flat nearly everywhere; doubt what was learned of it",
    ),
    "offline/largest_ratio": (lambda x: x > 1e4, "a few transitions outweigh all others; doubt the estimated reward"),
}


def alarms(metrics: Metrics) -> dict[str, str]:
    """Metric -> a sentence, for each metric that has passed its threshold."""
    return {
        name: f"{name} is {metrics[name]:.3g}: {meaning}"
        for name, (alarming, meaning) in ALARMS.items()
        if name in metrics and alarming(metrics[name])
    }


def not_finite(metrics: Metrics) -> list[str]:
    """Names of metrics that are NaN or infinite."""
    return [name for name, value in metrics.items() if not math.isfinite(value)]


@torch.no_grad()
def common_row(learner: Learner, data: Dataset) -> Metrics:
    """The metrics that every algorithm has, of its policy and values on the data that it learns from.

    The estimated reward is the learner's own value of the first states; without one, it is estimated by importance
    sampling of whole episodes.
    """
    policy, spec, row = with_preference(learner.policy, data.weights), learner.policy.spec, {}
    concentrations = map_batched(lambda seen: torch.stack(policy.concentrations(seen), -1), data.observations)
    alpha, beta = concentrations.unbind(-1)  # (N, A), (N, A)
    log_ratio = distribution(alpha, beta).log_prob(data.actions) - data.log_probs
    values = learner.values()
    if values is not None:
        row["losses/explained_variance"] = explained_variance(values.predicted, values.target)
    if values is not None and values.first is not None:
        reward = float((data.baselines + data.scale * values.first).mean())
    else:  # baselines aside, which would only add variance
        gains = data.episode_rewards - data.baselines  # (E,)
        reward = importance_sampled(log_ratio, data.episode, gains) + float(data.baselines.mean())
    fixed = spec.fixed_actions or [None] * len(spec.action_names)
    free = [name if value is None else "" for name, value in zip(spec.action_names, fixed, strict=True)]
    return row | ratios(log_ratio) | {"offline/estimated_reward": reward} | spread(alpha, beta, free)


def explained_variance(prediction: Tensor, target: Tensor) -> float:
    """1 - Var(target - prediction) / Var(target); 0 for a target without variance."""
    variance = target.var()
    return float(1 - (target - prediction).var() / variance) if variance > 0 else 0.0


def ratios(log_ratio: Tensor) -> Metrics:
    """How well logged actions represent the policy, from log pi - log behaviour (N,).

    The effective sample size (Kish 1965) is a fraction of N.
    """
    weights = (log_ratio - log_ratio.max()).double().exp()
    return {
        "offline/effective_sample_size": float(weights.sum() ** 2 / weights.square().sum() / len(weights)),
        "offline/largest_ratio": float(log_ratio.max().double().clamp(max=700).exp()),
    }


def spread(alpha: Tensor, beta: Tensor, names: Sequence[str]) -> Metrics:
    """The shape of the Betas of free actions, from concentrations (N, A) of the actions `names`, "" where fixed.

    The entropy of each action, in nats of the unit interval; and, of the worst action, the fraction of means within 2 %
    of a bound, and of flat distributions: with both concentrations within 0.01 of 1, the lowest of a BetaPolicy.
    """
    free = [i for i, name in enumerate(names) if name]
    mean = alpha / (alpha + beta)
    entropies = [distribution(alpha[:, [i]], beta[:, [i]]).entropy().mean() for i in free]
    near = ((mean < 0.02) | (mean > 0.98)).double().mean(0)[free]  # (free,)
    flat = (((alpha - 1).abs() < 0.01) & ((beta - 1).abs() < 0.01)).double().mean(0)[free]  # (free,)
    worst = {"policy/saturation": near, "policy/at_limit": flat}
    return {
        **{f"policy/entropy_{names[i]}": float(entropy) for i, entropy in zip(free, entropies, strict=True)},
        **{name: float(fraction.max()) if free else 0.0 for name, fraction in worst.items()},
    }


def importance_sampled(log_ratio: Tensor, episode: Tensor, rewards: Tensor) -> float:
    """Mean of episode rewards (E,) under the policy, by self-normalised importance sampling of whole episodes.

    `log_ratio` (N,) is log pi - log behaviour, `episode` (N,) the number of each transition's episode.
    """
    total = torch.zeros_like(rewards, dtype=torch.float64).index_add_(0, episode, log_ratio.double())  # (E,)
    return float((total.softmax(0) * rewards).sum())
