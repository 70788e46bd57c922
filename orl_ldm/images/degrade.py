"""From high to low resolution: the declared bicubic, or a light blind degradation on request.

`bsrgan_light` follows the idea of BSRGAN's light variant (Zhang et al. 2021, on which the public LDM was trained):
blur, down-scaling, sensor noise and JPEG with random strengths, drawn per image from its own stream.
"""

import io

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from orl_ldm.images.config import Degradation
from orl_ldm.images.resample import downscale, to_8bit, to_pixels, to_tensor
from orl_ldm.streams import stream


def low_resolution(
    hr: Tensor, scale: int, degradation: Degradation = "bicubic", seed: int = 0, image_id: int = 0
) -> Tensor:
    """LR image (3, h, w), 8-bit levels in [0, 1], of one HR image (3, h*scale, w*scale)."""
    if degradation == "bicubic":
        return to_8bit(downscale(hr[None], scale))[0]
    rng = stream(seed, "degrade", image_id)
    sigma = rng.uniform(0.1, 0.6 * scale, size=2)  # anisotropic blur, in HR pixels
    blurred = ndimage.gaussian_filter(hr.cpu().numpy(), sigma=(0, *sigma), mode="reflect")
    lr = downscale(torch.from_numpy(blurred)[None], scale)[0].numpy()
    noisy = lr + rng.normal(0, rng.uniform(1, 10) / 255, size=lr.shape)
    return jpeg(torch.from_numpy(noisy.astype(np.float32)), quality=int(rng.integers(60, 96))).to(hr)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """(3, H, W) in [0, 1] through JPEG at `quality` (1 to 100)."""
    encoded = io.BytesIO()
    Image.fromarray(to_pixels(x)).save(encoded, "JPEG", quality=quality)
    return to_tensor(np.asarray(Image.open(encoded).convert("RGB")))
