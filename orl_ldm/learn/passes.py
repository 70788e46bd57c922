"""Passes over a whole dataset that need memory for a part of it only."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Rows that a network sees at once; a few megabytes of activations.
BLOCK = 512


def in_blocks(function: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """`function` of columns (N, ...) that gives (N, ...), a block of rows at a time."""
    return torch.cat(
        [function(*block) for block in zip(*(torch.split(column, BLOCK) for column in columns), strict=True)]
    )
