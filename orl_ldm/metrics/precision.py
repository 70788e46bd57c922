"""Convolutions that are as exact as they look."""

from contextlib import AbstractContextManager

import torch


def working_dtype(device: torch.device) -> torch.dtype:
    """What SSIM and LPIPS are computed in: float64 on CUDA, float32 elsewhere.

    CUDA rounds the inputs of float32 convolutions to TF32's 10 bits unless told otherwise by a global flag. SSIM
    subtracts E[x]^2 from E[x^2], so that this costs it its second decimal (its first in flat regions). float64 is
    beyond that flag's reach, and cheap at this size.
    """
    return torch.float64 if device.type == "cuda" else torch.float32


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, an autocast that the caller has switched on does not reach the metrics."""
    return torch.autocast(device.type, enabled=False)
