"""Minibatches of transitions as tensors, drawn without bias.

Rows are drawn from the whole dataset, be it in memory or mapped from disk: no shuffle buffer favours neighbours.

Legend: N transitions, B minibatch, F observation features, A action dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orl_ldm.buffer.transitions import Transitions
from orl_ldm.errors import UserError


@dataclass(frozen=True)
class Minibatch:
    """In d3rlpy's terms. What follows an end was not logged: there, `next_observations` repeats the last one."""

    observations: Tensor  # (B, F)
    actions: Tensor  # (B, A) in natural units
    rewards: Tensor  # (B,)
    next_observations: Tensor  # (B, F)
    terminals: Tensor  # (B,) bool
    log_probs: Tensor  # (B,) of the behaviour


class Minibatches:
    """Draws of `batch_size` transitions on a device; the same seed gives the same draws.

    Raises UserError for a batch larger than the dataset.
    """

    def __init__(
        self, transitions: Transitions, batch_size: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        if not 1 <= batch_size <= len(transitions):
            raise UserError(f"batch_size is {batch_size}; give 1 to {len(transitions)}, the number of transitions")
        self.batch_size, self.rows, self.device = batch_size, len(transitions), torch.device(device)
        self._random = np.random.default_rng(seed)
        names = ("observations", "actions", "rewards", "terminals", "log_probs")
        self._columns = {name: torch.from_numpy(transitions.columns[name]) for name in names}
        self._ends = torch.from_numpy(transitions.terminals | transitions.timeouts)  # (N,)

    def draw(self) -> Minibatch:
        """Rows drawn uniformly, with replacement."""
        return self._gather(self._random.integers(self.rows, size=self.batch_size))

    def epoch(self) -> Iterator[Minibatch]:
        """Every row once, in an order that is uniform over all orders; the last minibatch may be smaller."""
        order = self._random.permutation(self.rows)
        for start in range(0, self.rows, self.batch_size):
            yield self._gather(order[start : start + self.batch_size])

    def _gather(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Minibatch:
        index = torch.from_numpy(rows)
        following = index + ~self._ends.index_select(0, index)
        batch = {name: column.index_select(0, index) for name, column in self._columns.items()}
        batch["next_observations"] = self._columns["observations"].index_select(0, following)
        return Minibatch(**{name: column.to(self.device) for name, column in batch.items()})
