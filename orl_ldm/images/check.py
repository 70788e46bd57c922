"""Check images that a caller hands over: one function for every way in."""

import torch
from torch import Tensor

from orl_ldm.errors import UserError

RANGE_SLACK = 1e-3  # a quarter of an 8-bit level: room for rounding, never for a [-1, 1] image


def as_images(x: Tensor, what: str = "lr") -> Tensor:
    """A batch (B, 3, h, w), float32, clamped to [0, 1], on the device of `x`.

    Args:
        x: float (B, 3, h, w) or (3, h, w), RGB in [0, 1]; `RANGE_SLACK` beyond is forgiven.
        what: what to call it in a message.

    Raises:
        UserError: `x` is no such tensor; the message names the fault and the mend.
    """
    if not isinstance(x, Tensor):
        raise UserError(
            f"{what} is a {type(x).__name__}: give a float tensor (B, 3, h, w), for example torch.as_tensor(x)"
        )
    shape = tuple(x.shape)
    if x.ndim not in (3, 4):
        raise UserError(f"{what} has shape {shape}: give RGB images as (B, 3, h, w), or one as (3, h, w)")
    if x.numel() == 0:
        raise UserError(f"{what} has shape {shape}: it holds no pixels")
    if x.shape[-3] != 3:
        mend = "move the channels there with permute" if x.shape[-1] == 3 else "give red, green and blue alone"
        raise UserError(f"{what} has shape {shape}, {x.shape[-3]} channels where 3 are expected: {mend}")
    if not x.is_floating_point():
        raise UserError(f"{what} is {x.dtype}: give floats in [0, 1] (divide 8-bit images by 255)")
    images = x.detach().to(torch.float32).reshape(-1, *shape[-3:])
    low, high = images.min().item(), images.max().item()
    if not (-float("inf") < low <= high < float("inf")):
        raise UserError(
            f"{what} holds values that are not finite: mask them out, or where a model in float16 made them, run it in "
            "bfloat16 or float32 (ldm.dtype)"
        )
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        signed = "a [-1, 1] image becomes one by x / 2 + 0.5"
        mend = "divide by 255" if high > 2 else signed if low < -0.5 else "clamp them"
        raise UserError(f"{what} has values in [{low:.3g}, {high:.3g}], not in [0, 1]: {mend}")
    return images.clamp(0, 1)
