"""Estimates of a policy's reward from logged data, with intervals by bootstrap over images.

Episodes of one image are alike, so images are resampled, not episodes (a cluster bootstrap, Field and Welsh 2007).
The policy's gain over the behaviour on the same images is estimated, and the behaviour's known mean is added: images
differ by many times more than policies do.

Legend: I images, E episodes, N transitions, M members of an ensemble, R resamples.
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
    """A reward with its bootstrapped standard error and 95 % interval; the behaviour's reward on the same images."""

    reward: float
    behavior: float
    standard_error: float
    low: float
    high: float


def of_members(gains: Tensor, data: Dataset, seed: int) -> Estimate:
    """From gains (M, E) in units of `data.scale`, one row for each member of an ensemble."""
    return summary(*_means(gains, data, seed), data)


def difference(one: Tensor, other: Tensor, data: Dataset, seed: int) -> tuple[float, float]:
    """(mean, bootstrapped standard error) of the reward of `one` minus that of `other`, both gains (M, E).

    They are compared on the same images and members, so that shared errors cancel.
    """
    mean, resampled = _means(one - other, data, seed)
    return data.scale * float(mean), data.scale * float(resampled.std())


def _means(gains: Tensor, data: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Mean of gains (M, E) over images, and that of each resample (R,).

    A resample is of one member and of images with replacement: the interval covers the error of the fit as well.
    """
    index, count = images(data)
    by_image = gains.new_zeros(len(gains), count).index_add_(1, index, gains) / torch.bincount(index)  # (M, I)
    counts = resamples(count, seed).to(gains)  # (R, I)
    members = torch.arange(len(counts), device=gains.device) % len(gains)
    return by_image.mean(), (counts * by_image[members]).sum(1) / count


def summary(gain: Tensor, resampled: Tensor, data: Dataset) -> Estimate:
    """From a gain in units of `data.scale` and its resamples (R,)."""
    index, count = images(data)
    sums = data.rewards.new_zeros(count).index_add_(0, index, data.episode_rewards)
    behavior = float((sums / torch.bincount(index)).mean())
    low, high = (float(resampled.double().quantile(q)) for q in (0.025, 0.975))
    return Estimate(
        reward=behavior + data.scale * float(gain),
        behavior=behavior,
        standard_error=data.scale * float(resampled.std()),
        low=behavior + data.scale * low,
        high=behavior + data.scale * high,
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
