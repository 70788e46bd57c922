"""What an algorithm offers to the training loop.

Legend: N transitions, E episodes.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from orl_ldm.errors import UserError
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.policy import TrainedPolicy

Metrics = dict[str, float]
Parts = dict[str, nn.Module | Optimizer]

#: Losses and diagnostics that an algorithm reports each epoch, where it has them.
LOSSES = tuple(f"losses/{name}" for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac"))


@dataclass(frozen=True)
class Values:
    """What a learner's value functions say of the data, in the units of `Dataset.rewards`."""

    predicted: Tensor  # (N,) of logged transitions
    target: Tensor  # (N,) what they are fitted to
    first: Tensor | None = None  # (E,) of the policy in the first states; None where no network tells


class Learner(Protocol):
    """An algorithm's state between two epochs. Randomness is a function of (seed, step): it needs no state."""

    parts: Parts  # everything that a checkpoint has to hold

    @property
    def policy(self) -> TrainedPolicy:
        """The policy so far."""
        ...

    def epoch(self, index: int) -> Metrics:
        """Learn for one epoch, counted from 0; the means of its losses, by CleanRL's names."""
        ...

    def values(self) -> Values | None:
        """Called after an epoch; None for algorithms without a value function of their own."""
        ...


def refuse(run: RunConfig, *settings: str) -> None:
    """Raise UserError if one of these settings is given, which the run's algorithm does not support."""
    for setting in settings:
        if getattr(run, setting):
            raise UserError(
                f'train.algo = "{run.algo}" does not support train.{setting}; remove it, or choose another algorithm'
            )


class AlgorithmConfig(Protocol):
    """An algorithm's settings."""

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def steps(self) -> int:
        """Gradient steps of an epoch."""
        ...

    def create(self, data: Dataset, run: RunConfig) -> Learner:
        """A new learner. Its initial weights come from torch's generator. Raises UserError for unsupported settings."""
        ...
