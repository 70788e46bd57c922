"""Null-space projection onto the LR image (DDNM, Wang, Yu and Zhang 2023, by back-projection, Irani and Peleg 1991).

What the declared down-scaling says about the HR image is known from the LR image; only the rest is for the model to
choose. Two rounds of y <- y + up(lr - down(y)) bring down(y) close to lr.
"""

from torch import Tensor

from orl_ldm.diffusion.schedule import per_image
from orl_ldm.images.resample import downscale, upscale

ROUNDS = 2


def back_project(image: Tensor, lr: Tensor, strength: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Move images (B, 3, H, W) towards agreement with LR images (B, 3, h, w), by `strength` (B,) in [0, 1]."""
    scale = image.shape[-1] // lr.shape[-1]
    weight = per_image(strength, image)
    for _ in range(rounds):
        image = image + weight * upscale(lr - downscale(image, scale), scale)
    return image
