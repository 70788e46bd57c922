"""Images that are kept from the learner, so that what it learned can be judged on images that it never saw.

Legend: N transitions, E episodes.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.learn.data import Dataset, gathered
from orl_ldm.streams import stable_id

#: With fewer images than this on either side, an interval over images says nothing.
FEWEST = 4


def split(data: Dataset, held_share: float) -> tuple[Dataset, Dataset | None]:
    """(what is learned from, what it is judged on): all and None when either side would have too few images."""
    held = drawn(data.image, held_share, "held out")
    if min(len(set(data.image[side].tolist())) for side in (held, ~held)) < FEWEST:
        return data, None
    return part(data, ~held), part(data, held)


def share(data: Dataset, part_of_images: float) -> Dataset:
    """The episodes of a part of the images, always the same ones. Raises UserError when none is left."""
    if part_of_images == 1:
        return data
    chosen = drawn(data.image, part_of_images, "share")
    if not chosen.any():
        raise UserError(f"train.share = {part_of_images:g} leaves no image to learn from: raise it, or collect more")
    return part(data, chosen)


def drawn(image: Tensor, part_of_images: float, purpose: str) -> Tensor:
    """(E,) whether each episode's image, by its id (E,), is drawn for a purpose.

    A hash of the id decides: an image keeps its side whichever buffers and rounds are added.
    """
    ids = image.tolist()
    chosen = {number: stable_id(f"{purpose}/{number}") < part_of_images * 2**63 for number in set(ids)}
    return torch.tensor([chosen[number] for number in ids], device=image.device)


def part(data: Dataset, episodes: Tensor) -> Dataset:
    """The episodes (E,) bool of a dataset, as a dataset. Baselines and scales stay: they are of images, or of all."""
    rows = episodes[data.episode].nonzero()[:, 0]
    number = episodes.long().cumsum(0) - 1  # (E,) numbers of the episodes that stay
    episode = number[data.episode[rows]]
    wide = ("observations", "next_observations")
    of_rows = ("actions", "log_probs", "rewards", "ends", "gains")
    of_episodes = ("image", "episode_rewards", "offsets")
    tensors: dict[str, Any] = {
        **{name: gathered(getattr(data, name), rows, data.folder) for name in wide},
        **{name: getattr(data, name)[rows] for name in of_rows},
        **{name: getattr(data, name)[episodes] for name in of_episodes},
    }
    starts = torch.searchsorted(episode, torch.arange(int(episodes.sum()), device=episode.device))
    return replace(data, **tensors, episode=episode, starts=starts)
