"""HR/LR pairs of one size, as the collector and the evaluator take them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.config import DataConfig
from orl_ldm.images.degrade import low_resolution
from orl_ldm.images.resample import to_tensor
from orl_ldm.images.sources import ImageRef


@dataclass(frozen=True)
class Batch:
    """B images: HR (B, 3, H, W) and LR (B, 3, H/scale, W/scale), 8-bit levels in [0, 1], and who they are."""

    hr: Tensor
    lr: Tensor
    refs: tuple[ImageRef, ...]


def load_pairs(refs: Sequence[ImageRef], config: DataConfig) -> Batch:
    """Centre crops and their LR versions. Raises UserError naming an image that is too small or unreadable."""
    hr = torch.stack([centre_crop(ref, config.size) for ref in refs])
    lr = [
        low_resolution(x, config.scale, config.degradation, config.seed, ref.image_id)
        for x, ref in zip(hr, refs, strict=True)
    ]
    return Batch(hr, torch.stack(lr), tuple(refs))


def centre_crop(ref: ImageRef, size: int) -> Tensor:
    """(3, size, size) in [0, 1]."""
    pixels = ref.load()
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise UserError(f"image {ref.name!r} is {width}x{height} pixels; this pipeline needs at least {size}x{size}")
    top, left = (height - size) // 2, (width - size) // 2
    return to_tensor(pixels[top : top + size, left : left + size])
