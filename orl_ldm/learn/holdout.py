"""Held-out images: the learner never sees them, so that they can judge what it learned.

Legend: N transitions, E episodes.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.learn.data import Dataset, gathered
from orl_ldm.streams import stable_id

#: With fewer images than this on either side, an interval over images means nothing.
FEWEST = 4


def split(data: Dataset, fraction: float) -> tuple[Dataset, Dataset | None]:
    """(data to learn from, held-out images): all and None when either side would have too few images."""
    held_out = drawn(data.image, fraction, "held out")
    if min(len(set(data.image[side].tolist())) for side in (held_out, ~held_out)) < FEWEST:
        return data, None
    return part(data, ~held_out), part(data, held_out)


def share(data: Dataset, fraction: float) -> Dataset:
    """The episodes of a fraction of the images, always the same ones. Raises UserError when none is left."""
    if fraction == 1:
        return data
    chosen = drawn(data.image, fraction, "share")
    if not chosen.any():
        raise UserError(f"train.image_fraction = {fraction:g} leaves no image to learn from: raise it, or collect more")
    return part(data, chosen)


def drawn(image: Tensor, fraction: float, purpose: str) -> Tensor:
    """(E,) whether each episode's image, by its id (E,), is drawn for a purpose.

    A hash of the id decides: an image keeps its side whichever buffers and rounds are added.
    """
    ids = image.tolist()
    chosen = {number: stable_id(f"{purpose}/{number}") < fraction * 2**63 for number in set(ids)}
    return torch.tensor([chosen[number] for number in ids], device=image.device)


def part(data: Dataset, episodes: Tensor) -> Dataset:
    """Some episodes (E,) bool of a dataset, as a dataset. Baselines and scales stay as they were."""
    rows = episodes[data.episode].nonzero()[:, 0]
    number = episodes.long().cumsum(0) - 1  # (E,) numbers of the episodes that stay
    episode = number[data.episode[rows]]
    wide = ("observations", "next_observations")
    of_rows = ("actions", "log_probs", "rewards", "ends", "term_gains")
    of_episodes = ("image", "episode_rewards", "baselines")
    tensors: dict[str, Any] = {
        **{name: gathered(getattr(data, name), rows, data.folder) for name in wide},
        **{name: getattr(data, name)[rows] for name in of_rows},
        **{name: getattr(data, name)[episodes] for name in of_episodes},
    }
    starts = torch.searchsorted(episode, torch.arange(int(episodes.sum()), device=episode.device))
    return replace(data, **tensors, episode=episode, starts=starts)
