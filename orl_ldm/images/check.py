"""What an image of a caller has to be."""

import math

import torch
from torch import Tensor

from orl_ldm.errors import UserError

#: How far values may leave [0, 1]: rounding noise, never an image in [-1, 1] or of 8 bits.
SLACK = 1e-3


def as_images(x: Tensor, what: str = "lr") -> Tensor:
    """(B, 3, h, w) or (3, h, w) floats in [0, 1] as float32 (B, 3, h, w). Raises UserError naming the fault."""
    if not isinstance(x, Tensor) or x.ndim not in (3, 4) or x.shape[-3] != 3 or x.numel() == 0:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"{what} is {shape}; give RGB images as a tensor (B, 3, h, w) or (3, h, w)")
    if not x.is_floating_point():
        raise UserError(f"{what} is {x.dtype}; give floats in [0, 1] (divide 8-bit images by 255)")
    batch = (x if x.ndim == 4 else x[None]).to(torch.float32)
    low, high = batch.min().item(), batch.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{what} has values that are not finite")
    if low < -SLACK or high > 1 + SLACK:
        mend = "divide by 255" if high > 2 else "scale it"
        raise UserError(f"{what} has values in [{low:.3g}, {high:.3g}]; give [0, 1] ({mend})")
    return batch.clamp(0, 1)
