"""PSNR and SSIM of single images, in torchmetrics' implementation."""

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from orl_ldm.metrics.contract import SMALLEST_SSIM, check_size
from orl_ldm.metrics.precision import no_autocast, working_dtype

PSNR_CAP = 100.0  # dB


@torch.no_grad()
def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most 100 (that of identical images).

    Args:
        output, target: float (B, C, H, W) in [0, 1]; not rounded here.

    Returns:
        float32 (B,).
    """
    # `dim` makes it per image: the default pools the squared errors of the whole batch.
    decibels: Tensor = peak_signal_noise_ratio(
        output.float(), target.float(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return decibels.clamp(max=PSNR_CAP)


@torch.no_grad()
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
    check_size("SSIM", output.shape[-2:], SMALLEST_SSIM)
    dtype = working_dtype(output.device)
    with no_autocast(output.device):
        similarity = structural_similarity_index_measure(
            output.to(dtype), target.to(dtype), sigma=1.5, kernel_size=11, data_range=1.0, reduction="none"
        )
    assert isinstance(similarity, Tensor)  # a tuple only when the full map is asked for
    return similarity.float()
