"""PSNR and SSIM of single images, in torchmetrics' implementation."""

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from orl_ldm.metrics.contract import SMALLEST_SSIM, check_size
from orl_ldm.metrics.precision import no_autocast, working_dtype
from orl_ldm.metrics.tiles import Span, spans

PSNR_CAP = 100.0  # dB
RADIUS = SMALLEST_SSIM // 2  # of SSIM's window


@torch.no_grad()
def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most 100 (that of identical images).

    Args:
        output, target: float (B, C, H, W) in [0, 1]; not rounded here.

    Returns:
        float32 (B,).
    """
    # `dim` makes it per image: the default pools the squared errors of the whole batch.
    with no_autocast(output.device):
        decibels: Tensor = peak_signal_noise_ratio(
            output.float(), target.float(), data_range=1.0, reduction="none", dim=(1, 2, 3)
        )
    return decibels.float().clamp(max=PSNR_CAP)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004), at most 1 (that of identical images).

    Gaussian window 11 x 11 with sigma 1.5, data range 1; mean over channels and all pixels, borders reflected.

    Args:
        output, target: float (B, C, H, W) in [0, 1]; not rounded here.

    Returns:
        float32 (B,).

    Raises:
        UserError: the images are smaller than the window.
    """
    return ssim_map(output, target).mean((1, 2)).float()


@torch.no_grad()
def ssim_map(output: Tensor, target: Tensor) -> Tensor:
    """SSIM at every pixel, the mean over channels: (B, H, W), in the metrics' dtype. See `ssim`."""
    check_size("SSIM", output.shape[-2:], SMALLEST_SSIM)
    height, width = output.shape[-2:]
    rows = [
        torch.cat([_ssim_tile(output, target, y, x) for x in spans(width, RADIUS)], dim=2)
        for y in spans(height, RADIUS)
    ]
    return torch.cat(rows, dim=1)


def _ssim_tile(output: Tensor, target: Tensor, y: Span, x: Span) -> Tensor:
    """(B, h, w) of a tile, whose pixels see the neighbours that they have in the whole image."""
    dtype = working_dtype(output.device)
    with no_autocast(output.device):
        _, full = structural_similarity_index_measure(
            output[..., y.read, x.read].to(dtype),
            target[..., y.read, x.read].to(dtype),
            sigma=1.5,
            kernel_size=11,
            data_range=1.0,
            reduction="none",
            return_full_image=True,
        )
    return full[..., y.own(), x.own()].mean(1)
