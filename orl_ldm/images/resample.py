"""Antialiased bicubic resampling, the declared down-scaling of this project.

PyTorch's antialiased bicubic has the kernel (a = -0.5) and the support scaling of MATLAB's imresize and of Pillow;
without antialiasing the bicubic baseline moves by about 0.8 dB.

Legend: B batch, C channels, H and W height and width. Images are float tensors in [0, 1].
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bicubic resize of (B, C, H, W) to (B, C, height, width); values may overshoot [0, 1]."""
    return F.interpolate(x, size=(height, width), mode="bicubic", antialias=True, align_corners=False)


def downscale(x: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H/scale, W/scale), linear in x."""
    return resize(x, x.shape[-2] // scale, x.shape[-1] // scale)


def upscale(x: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H*scale, W*scale), linear in x."""
    return resize(x, x.shape[-2] * scale, x.shape[-1] * scale)


def lanczos_upscale(x: Tensor, scale: int) -> Tensor:
    """Lanczos-3 upscale through Pillow, channel by channel in float. (B, C, H, W) -> (B, C, H*scale, W*scale)."""
    from PIL import Image

    size = (x.shape[-1] * scale, x.shape[-2] * scale)
    planes = x.detach().cpu().float().numpy().reshape(-1, *x.shape[-2:])
    resized = [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.LANCZOS)) for p in planes]
    return torch.from_numpy(np.stack(resized)).reshape(*x.shape[:2], size[1], size[0]).to(x)


def to_8bit(x: Tensor) -> Tensor:
    """Round to the 256 levels k/255 of an 8-bit image; float in, clamped to [0, 1], same shape and dtype out."""
    return (x.clamp(0, 1) * 255).round() / 255


def to_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def to_pixels(x: Tensor) -> npt.NDArray[np.uint8]:
    """(3, H, W) float in [0, 1] -> (H, W, 3) uint8."""
    return (x.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
