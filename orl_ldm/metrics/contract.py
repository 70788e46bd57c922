"""How PSNR, SSIM and LPIPS are computed. Numbers may be compared only under equal contracts.

- Every metric is computed per image; a table's number is the mean over images (never a PSNR of pooled errors).
- RGB in [0, 1]; output and target are first rounded to 8 bits, because a file holds 8 bits. No border is cut off.
- PSNR in dB: 10 log10(1 / MSE), MSE over all pixels and channels of one image, capped at 100 dB (identical images would
  give infinity, which buffers refuse).
- SSIM (Wang et al. 2004): Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, data range 1, population covariance,
  mean over channels and *all* pixels with reflected borders, as torchmetrics does it (piqa, and scikit-image by
  default, leave 5 px of border out of the mean).
- LPIPS (Zhang et al. 2018): AlexNet, linear heads v0.1, inputs scaled to [-1, 1], no resizing. Lower is better.

PSNR in float32, SSIM and LPIPS too, or in float64 on CUDA; never in TF32 or under autocast.
"""

from collections.abc import Sequence

from orl_ldm.errors import UserError

SMALLEST_SSIM = 11  # px: the side of SSIM's window
SMALLEST_LPIPS = 31  # px: below this AlexNet's second max-pooling has no window left

#: The contract as plain data, stored beside its numbers.
CONTRACT = {
    "version": "1",
    "average": "per image, then mean over images",
    "input": "8-bit RGB",
    "psnr": "dB, capped at 100",
    "ssim": "gaussian 11x11, sigma 1.5, data range 1, reflected borders",
    "lpips": "alex v0.1",
}


def check_size(what: str, size: Sequence[int], least: int) -> None:
    """Raise UserError unless images of size (H, W) have `least` pixels a side."""
    height, width = size
    if min(height, width) < least:
        raise UserError(f"{what} needs images of at least {least} x {least} px, got {width} x {height}")
