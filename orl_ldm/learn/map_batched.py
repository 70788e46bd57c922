"""Apply a function to a whole dataset with memory for a part of it."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Rows that a network sees at once; a few megabytes of activations.
BLOCK = 512


def map_batched(function: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """`function` of columns (N, ...) -> (N, ...), a block of rows at a time."""
    return torch.cat(
        [function(*block) for block in zip(*(torch.split(column, BLOCK) for column in columns), strict=True)]
    )
