"""What a run says about itself each epoch, under CleanRL's names where it has one, and when that is alarming.

Legend: N transitions, E episodes.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from orl_ldm.learn import densities

Metrics = dict[str, float]

#: Metric -> (when it is alarming, what to think of it).
ALARMS: dict[str, tuple[Callable[[float], bool], str]] = {
    "losses/approx_kl": (lambda x: x > 1.5, "the policy leaps; lower the learning rate"),
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


def explained_variance(prediction: Tensor, target: Tensor) -> float:
    """1 - Var(target - prediction) / Var(target); 0 for a target without variance."""
    variance = target.var()
    return float(1 - (target - prediction).var() / variance) if variance > 0 else 0.0


def importance(log_ratio: Tensor) -> Metrics:
    """How well logged actions represent the policy, from log pi - log behaviour (N,).

    The effective sample size (Kish 1965) is given as a fraction of N.
    """
    weights = (log_ratio - log_ratio.max()).double().exp()
    return {
        "offline/effective_sample_size": float(weights.sum() ** 2 / weights.square().sum() / len(weights)),
        "offline/largest_ratio": float(log_ratio.max().double().clamp(max=700).exp()),
    }


def spread(alpha: Tensor, beta: Tensor, names: Sequence[str]) -> Metrics:
    """What the Betas of free actions look like, from concentrations (N, A) of the actions `names`, "" where held.

    An entropy for each action, in nats of the unit interval; and, of the worst action, the share of means within 2 % of
    a bound, and that of flat ones: with both concentrations within 0.01 of 1, as low as a BetaPolicy's go.
    """
    free = [i for i, name in enumerate(names) if name]
    mean = alpha / (alpha + beta)
    entropy = {f"policy/entropy_{names[i]}": float(densities.entropy(alpha[:, [i]], beta[:, [i]]).mean()) for i in free}
    near = ((mean < 0.02) | (mean > 0.98)).double().mean(0)[free]  # (free,)
    low = (((alpha - 1).abs() < 0.01) & ((beta - 1).abs() < 0.01)).double().mean(0)[free]  # (free,)
    worst = {"policy/saturation": near, "policy/at_limit": low}
    return entropy | {name: float(share.max()) if free else 0.0 for name, share in worst.items()}


def weighted_reward(log_ratio: Tensor, episode: Tensor, rewards: Tensor) -> float:
    """Mean of episode rewards (E,) under the policy, by self-normalised importance sampling of whole episodes.

    `log_ratio` (N,) is log pi - log behaviour, `episode` (N,) the number of each transition's episode.
    """
    total = torch.zeros_like(rewards, dtype=torch.float64).index_add_(0, episode, log_ratio.double())  # (E,)
    return float((total.softmax(0) * rewards).sum())
