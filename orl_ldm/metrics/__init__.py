"""PSNR, SSIM and LPIPS under one written contract.

`Metrics()(output, target)` scores a batch, one row per image; `CONTRACT` is stored beside the numbers.
"""

from orl_ldm.metrics.contract import CONTRACT
from orl_ldm.metrics.lpips import Lpips
from orl_ldm.metrics.metrics import METRICS, Metrics, episode_terms
from orl_ldm.metrics.pixels import psnr, ssim, ssim_map
from orl_ldm.metrics.weights import lpips_weights

__all__ = ["CONTRACT", "METRICS", "Lpips", "Metrics", "episode_terms", "lpips_weights", "psnr", "ssim", "ssim_map"]
