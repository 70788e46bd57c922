"""Every draw of a run is a function of (seed, step): a checkpoint needs no state of any generator."""

import torch
from torch import Tensor

from orl_ldm.streams import stream


def draw(seed: int, step: int, rows: int, count: int, purpose: str = "select") -> Tensor:
    """(count,) row numbers below `rows`, with replacement; each purpose has its own (orl_ldm.streams.PURPOSES)."""
    return torch.from_numpy(stream(seed, purpose, step).integers(rows, size=count))


def shuffle(seed: int, step: int, turn: int, count: int) -> Tensor:
    """(count,) a permutation."""
    return torch.from_numpy(stream(seed, "select", step, turn).permutation(count))


def seed_step(seed: int, step: int) -> None:
    """Seed torch's own generators, which sample the Beta distributions, for one step."""
    torch.manual_seed(int(stream(seed, "action", step).integers(2**62)))


def seed_start(seed: int) -> None:
    """Seed torch's own generators for the initial weights."""
    torch.manual_seed(int(stream(seed, "start").integers(2**62)))
