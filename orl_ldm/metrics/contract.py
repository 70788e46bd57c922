"""What the numbers mean: the contract, and the checks and conversions that it asks of every image.

B images, C channels, H x W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from orl_ldm.errors import UserError

SMALLEST_SSIM = 11  # px: the side of SSIM's window
SMALLEST_LPIPS = 31  # px: below this AlexNet's second max-pooling has no window left
RANGE_SLACK = 1e-3  # a quarter of an 8-bit level: forgives rounding noise, never a [-1, 1] image

# Rows of MATLAB's rgb2ycbcr (ITU-R BT.601, studio swing) for R, G, B in [0, 1]; Y runs from 16/255 to 235/255.
Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
Y_OFFSET = 16 / 255


@dataclass(frozen=True)
class Contract:
    """How PSNR, SSIM and LPIPS are computed. Numbers may be compared only under equal contracts.

    Fixed by version "1":
    - every metric is computed per image; a table's number is the mean over images (never a PSNR of pooled errors);
    - RGB in [0, 1]; output and target are first rounded to 8 bits, because a file holds 8 bits;
    - PSNR in dB: 10 log10(1 / MSE), MSE over all pixels and channels of one image, capped at 100 dB
      (identical images would give infinity, which buffers refuse);
    - SSIM (Wang et al. 2004): Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, data range 1, population
      covariance, mean over channels and *all* pixels with reflected borders, as torchmetrics does it (piqa, and
      scikit-image by default, leave 5 px of border out of the mean);
    - LPIPS (Zhang et al. 2018): AlexNet, linear heads v0.1, inputs scaled to [-1, 1], no resizing. Lower is better.
    PSNR in float32, SSIM and LPIPS too, or in float64 on CUDA; never in TF32 or under autocast.

    Options:
        crop: border pixels removed on every side before anything else; super-resolution papers often use the scale.
        y_channel: PSNR and SSIM on the Y of ITU-R BT.601 as MATLAB's rgb2ycbcr gives it (16 to 235 of 255, not
            rounded again, data range still 1). LPIPS stays on RGB, the only input that its network knows.
    """

    version: str = "1"
    crop: int = 0
    y_channel: bool = False

    def __post_init__(self) -> None:
        """Refuse what this code cannot honour (ValueError)."""
        if self.version != "1":
            raise ValueError(f"metric contract version {self.version!r} is unknown; this code computes version '1'")
        if self.crop < 0:
            raise ValueError(f"crop is {self.crop}; it counts border pixels to remove and cannot be negative")

    def describe(self) -> dict[str, Any]:
        """The contract as plain data (JSON) to store beside its numbers: the options and what the version fixes."""
        return {
            **asdict(self),
            "average": "per image, then mean over images",
            "input": "8-bit RGB" + (", PSNR and SSIM on BT.601 Y" if self.y_channel else ""),
            "psnr": "dB, capped at 100",
            "ssim": "gaussian 11x11, sigma 1.5, data range 1, reflected borders",
            "lpips": "alex v0.1",
        }


def luma(x: Tensor) -> Tensor:
    """Y of ITU-R BT.601 as MATLAB's rgb2ycbcr: (B, 3, H, W) RGB in [0, 1] -> (B, 1, H, W) in [16/255, 235/255]."""
    weights = torch.tensor(Y_WEIGHTS, dtype=x.dtype, device=x.device)
    return (x * weights[:, None, None]).sum(1, keepdim=True) + Y_OFFSET


def check_pair(output: Tensor, target: Tensor) -> None:
    """Raise ValueError, saying which tensor and why, unless both are float (B, 3, H, W) in [0, 1] of one shape.

    Raises UserError for values that are not finite: those are no programmer's mistake.
    """
    for name, x in (("output", output), ("target", target)):
        if x.ndim != 4 or x.shape[1] != 3 or x.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; metrics take RGB images as (B, 3, H, W)")
        if not x.is_floating_point():
            raise ValueError(f"{name} is {x.dtype}; metrics take floats in [0, 1] (divide 8-bit images by 255)")
        low, high = x.min().item(), x.max().item()
        if not (math.isfinite(low) and math.isfinite(high)):
            hint = ": an LDM in float16 may overflow (set ldm.dtype to bfloat16 or float32)"
            raise UserError(
                f"metrics cannot score {name} images whose values are not finite{hint if name == 'output' else ''}"
            )
        if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
            raise ValueError(
                f"{name} has values in [{low:.3g}, {high:.3g}]; metrics take [0, 1] "
                "(a [-1, 1] image becomes one by x / 2 + 0.5)"
            )
    if output.shape != target.shape:
        raise ValueError(f"output has shape {tuple(output.shape)} but target has {tuple(target.shape)}")


def check_size(what: str, size: Sequence[int], least: int, crop: int = 0) -> None:
    """Raise UserError unless images of size (H, W), from which `crop` px per side are gone, have `least` px a side."""
    height, width = size
    if min(height, width) < least:
        cropped = f" after cropping {crop} px per side" if crop else ""
        raise UserError(f"{what} needs images of at least {least} x {least} px, got {width} x {height}{cropped}")
