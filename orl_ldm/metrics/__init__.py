"""PSNR, SSIM and LPIPS under one written contract.

`Metrics(Contract())(output, target)` scores a batch, one row per image; `Contract.describe()` is what is stored
beside the numbers.
"""

from orl_ldm.metrics.contract import Contract
from orl_ldm.metrics.lpips import Lpips
from orl_ldm.metrics.metrics import Metrics
from orl_ldm.metrics.pixels import psnr, ssim
from orl_ldm.metrics.weights import lpips_weights

__all__ = ["Contract", "Lpips", "Metrics", "lpips_weights", "psnr", "ssim"]
