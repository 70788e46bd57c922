"""All three metrics of a batch at once."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.images.check import as_images
from orl_ldm.images.resample import to_8bit
from orl_ldm.metrics.contract import SMALLEST_LPIPS, check_size
from orl_ldm.metrics.lpips import Lpips
from orl_ldm.metrics.pixels import psnr, ssim
from orl_ldm.reward import TERMS

CHUNK_PIXELS = 2**19  # pixels of small images that are scored at a time

#: (output, target), each (B, 3, H, W) at 8-bit levels in [0, 1] -> (B,)
Metric = Callable[[Tensor, Tensor], Tensor]

#: Name of a reward term -> what makes its metric for a device. Terms of cost (`nfe`, `seconds`) are not here.
METRICS: dict[str, Callable[[torch.device], Metric]] = {
    "psnr": lambda device: psnr,
    "ssim": lambda device: ssim,
    "lpips": Lpips,
}


class Metrics:
    """The metrics of image pairs under the contract: PSNR, SSIM and LPIPS, and whatever else is in METRICS.

    Args:
        device: where they are computed; inputs are moved there.

    Raises:
        UserError: LPIPS's weights are neither cached nor in reach.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._metrics = {name: make(self.device) for name, make in METRICS.items()}

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Score every image of a batch; rows do not depend on the batch that they came in (to float tolerance).

        On the CPU it takes at most 0.5 GB and twice the memory of the images themselves as float32.

        Args:
            output, target: float (B, 3, H, W), RGB in [0, 1], on any device. Both are rounded to 8 bits first.

        Returns:
            float32 (B, M) on the metrics' device, in the order of METRICS: PSNR in dB (at most 100), SSIM, LPIPS.

        Raises:
            UserError: shapes differ or are not RGB batches, the dtype is no float, values leave [0, 1] or are not
                finite, or the images are under 31 px on a side.
        """
        output, target = as_images(output, "output"), as_images(target, "target")
        if output.shape != target.shape:
            raise UserError(f"output has shape {tuple(output.shape)} but target has {tuple(target.shape)}")
        height, width = output.shape[-2:]
        check_size("the metric contract", (height, width), SMALLEST_LPIPS)
        size = max(1, CHUNK_PIXELS // (height * width))
        pairs = zip(torch.split(output, size), torch.split(target, size), strict=True)
        return torch.cat([self._score(to_8bit(a.to(self.device)), to_8bit(b.to(self.device))) for a, b in pairs])

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        """(B, 3, H, W) twice -> (B, M)."""
        return torch.stack([metric(output, target) for metric in self._metrics.values()], dim=1)


def episode_terms(quality: Tensor, nfe: npt.NDArray[np.integer], seconds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Raw reward terms (B, T) in the order of TERMS, of metrics (B, M), denoiser calls (B,) and seconds (B,) or ()."""
    columns = dict(zip(METRICS, quality.cpu().double().numpy().T, strict=True))
    columns |= {"nfe": nfe.astype(np.float64), "seconds": np.broadcast_to(np.asarray(seconds, np.float64), nfe.shape)}
    return np.stack([columns[name] for name in TERMS], axis=1)
