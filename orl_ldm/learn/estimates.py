"""Estimates of a policy's reward from logged data, with intervals by bootstrap over images.

Episodes of one image are alike, so images, not episodes, are what is resampled (a cluster bootstrap, Field and Welsh
2007). What is estimated is the policy's gain over the behaviour on the same images; the behaviour's own mean on them is
known and is added: it would bring in the differences between images, many times what policies differ by.

Legend: I images, E episodes, M members of an ensemble, R resamples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from orl_ldm.learn.data import Dataset
from orl_ldm.streams import stream

#: Resamples of an interval.
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A reward, its bootstrapped standard error and 95 % interval; and the behaviour's reward on the same images."""

    reward: float
    behavior: float
    standard_error: float
    low: float
    high: float


def of_members(gains: Tensor, data: Dataset, seed: int) -> Estimate:
    """From gains (M, E) in standard deviations, one row for each member, each fitted to a resample of the images."""
    return summary(*_means(gains, data, seed), data)


def difference(one: Tensor, other: Tensor, data: Dataset, seed: int) -> tuple[float, float]:
    """(mean, bootstrapped standard error) of the reward of `one` less that of `other`, both gains (M, E).

    The same images and members stand behind both, and what they have in common cancels.
    """
    mean, resampled = _means(one - other, data, seed)
    return data.scale * float(mean), data.scale * float(resampled.std())


def _means(gains: Tensor, data: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Mean of gains (M, E) over images, and that of each resample (R,).

    A resample takes one member and images with replacement: the interval holds the doubt about the fit as well.
    """
    index, count = images(data)
    by_image = gains.new_zeros(len(gains), count).index_add_(1, index, gains) / torch.bincount(index)  # (M, I)
    counts = resamples(count, seed).to(gains)  # (R, I)
    members = torch.arange(len(counts), device=gains.device) % len(gains)
    return by_image.mean(), (counts * by_image[members]).sum(1) / count


def summary(gain: Tensor, resampled: Tensor, data: Dataset) -> Estimate:
    """From a gain in standard deviations and its resamples (R,)."""
    index, count = images(data)
    sums = data.rewards.new_zeros(count).index_add_(0, index, data.episode_rewards)
    behaviour = float((sums / torch.bincount(index)).mean())
    low, high = (float(resampled.double().quantile(q)) for q in (0.025, 0.975))
    return Estimate(
        reward=behaviour + data.scale * float(gain),
        behavior=behaviour,
        standard_error=data.scale * float(resampled.std()),
        low=behaviour + data.scale * low,
        high=behaviour + data.scale * high,
    )


def images(data: Dataset) -> tuple[Tensor, int]:
    """(number (E,) of each episode's image, how many images there are)."""
    ids, index = data.image.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return index, len(ids)


def resamples(count: int, seed: int) -> Tensor:
    """(R, I) how often each image is drawn."""
    drawn = stream(seed, "judge", count).multinomial(count, [1 / count] * count, size=RESAMPLES)
    return torch.from_numpy(drawn)


def member_weights(data: Dataset, members: int, seed: int) -> Tensor:
    """(M, N) weight of each transition for each member: how often a bootstrap resample draws its image."""
    index, count = images(data)
    return resamples(count, seed)[:members].to(data.rewards)[:, index[data.episode]]
