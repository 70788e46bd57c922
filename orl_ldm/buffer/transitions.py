"""Logged transitions as a learner reads them.

Legend: N rows (transitions), E episodes, F observation features, A action dimensions, T raw reward terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Header, ImageRef
from orl_ldm.buffer.validation import episode_bounds
from orl_ldm.errors import UserError
from orl_ldm.reward import TERMS, Weights, compose


@dataclass(frozen=True)
class Transitions:
    """Rows of all good shards, in the order of shard names; rows of an episode are contiguous and in time order.

    Columns are arrays in memory, or mapped from disk where they exceed the reader's `memory_limit`.

    An episode is identified by its id, behaviour and seed: buffers of two behaviours may both have an episode 0, so
    tell episodes apart by `episode_bounds`.
    """

    header: Header  # of the first shard; behaviour, seed and packages may differ in others
    columns: Mapping[str, npt.NDArray[Any]]
    images: Mapping[int, ImageRef]
    shards: tuple[str, ...]  # those that rows came from
    behaviors: Mapping[tuple[str, int], int]  # (behaviour, seed) -> episodes
    quarantined: Mapping[str, str]  # shard name -> why its rows are not here

    def __len__(self) -> int:
        return len(self.columns["terminals"])

    @property
    def observations(self) -> npt.NDArray[np.float32]:
        """(N, F)"""
        return self.columns["observations"]

    @property
    def actions(self) -> npt.NDArray[np.float32]:
        """(N, A), within the header's bounds."""
        return self.columns["actions"]

    @property
    def log_probs(self) -> npt.NDArray[np.float32]:
        """(N,) log-density of the action under the behaviour, in the action's natural units."""
        return self.columns["log_probs"]

    @property
    def terminals(self) -> npt.NDArray[np.bool_]:
        """(N,) the episode ended on this row."""
        return self.columns["terminals"]

    @property
    def terms(self) -> npt.NDArray[np.float32]:
        """(N, T) raw reward terms, zero but on the last row of an episode."""
        return self.columns["terms"]

    @property
    def episode_id(self) -> npt.NDArray[np.int64]:
        """(N,)"""
        return self.columns["episode_id"]

    @property
    def image_id(self) -> npt.NDArray[np.int64]:
        """(N,) keys of `images`."""
        return self.columns["image_id"]

    @property
    def episode_bounds(self) -> npt.NDArray[np.int64]:
        """(E, 2) first row of each episode and one past its last."""
        return episode_bounds(self.columns)


def episode_rewards(header: Header, terms: npt.NDArray[np.float32], weights: Weights) -> npt.NDArray[np.float64]:
    """(E,) rewards of raw terms (E, T). Raises UserError when the buffer logs other terms than the reward needs."""
    if header.term_names != tuple(TERMS):
        raise UserError(
            f"no reward can be composed: the buffer logs the terms {', '.join(header.term_names)}; "
            f"needed are {', '.join(TERMS)}"
        )
    return compose(terms, weights, header.nfe_max)
