"""Images that are kept from the learner, so that what it learned can be judged on images that it never saw.

Legend: N transitions, E episodes.
"""

from dataclasses import replace

import torch
from torch import Tensor

from orl_ldm.learn.data import Dataset
from orl_ldm.streams import stable_id

#: With fewer images than this on either side, an interval over images says nothing.
FEWEST = 4


def split(data: Dataset, share: float) -> tuple[Dataset, Dataset | None]:
    """(what is learned from, what it is judged on): all and None when either side would have too few images."""
    held = held_out(data.image, share)
    if min(len(set(data.image[side].tolist())) for side in (held, ~held)) < FEWEST:
        return data, None
    return part(data, ~held), part(data, held)


def held_out(image: Tensor, share: float) -> Tensor:
    """(E,) whether each episode's image, by its id (E,), is held out.

    A hash of the id decides: an image keeps its side whichever buffers and rounds are added.
    """
    ids = image.tolist()
    held = {number: stable_id(f"held out/{number}") < share * 2**63 for number in set(ids)}
    return torch.tensor([held[number] for number in ids], device=image.device)


def part(data: Dataset, episodes: Tensor) -> Dataset:
    """The episodes (E,) bool of a dataset, as a dataset. Baselines and scales stay: they are of images, or of all."""
    rows = episodes[data.episode].nonzero()[:, 0]
    number = episodes.long().cumsum(0) - 1  # (E,) numbers of the episodes that stay
    episode = number[data.episode[rows]]
    of_rows = ("observations", "actions", "log_probs", "rewards", "ends", "next_observations", "gains")
    of_episodes = ("image", "episode_rewards", "offsets")
    return replace(
        data,
        **{name: getattr(data, name)[rows] for name in of_rows},
        **{name: getattr(data, name)[episodes] for name in of_episodes},
        episode=episode,
        starts=torch.searchsorted(episode, torch.arange(int(episodes.sum()), device=episode.device)),
    )
