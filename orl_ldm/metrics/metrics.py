"""All three metrics of a batch at once."""

import torch
from torch import Tensor

from orl_ldm.images.resample import to_8bit
from orl_ldm.metrics.contract import SMALLEST_LPIPS, Contract, check_pair, check_size, luma
from orl_ldm.metrics.lpips import Lpips
from orl_ldm.metrics.pixels import psnr, ssim

CHUNK_PIXELS = 2**19  # pixels scored at a time: about 0.5 GB of work memory, whatever the batch


class Metrics:
    """PSNR, SSIM and LPIPS of image pairs under a `Contract`.

    Args:
        contract: what is computed.
        device: where it is computed; inputs are moved there.

    Raises:
        UserError: LPIPS's weights are neither cached nor in reach.
    """

    def __init__(self, contract: Contract = Contract(), device: torch.device | str = "cpu") -> None:
        self.contract = contract
        self.device = torch.device(device)
        self._lpips = Lpips(self.device)

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Score every image of a batch; rows do not depend on the batch that they came in (to float tolerance).

        Args:
            output, target: float (B, 3, H, W), RGB in [0, 1], on any device. Both are rounded to 8 bits first.

        Returns:
            float32 (B, 3) on the metrics' device: PSNR in dB (at most 100), SSIM, LPIPS.

        Raises:
            ValueError: shapes differ or are not RGB batches, the dtype is no float, or values leave [0, 1].
            UserError: the images, after cropping, are under 31 px on a side, or values are not finite.
        """
        check_pair(output, target)
        height, width = (side - 2 * self.contract.crop for side in output.shape[-2:])
        check_size("the metric contract", (height, width), SMALLEST_LPIPS, self.contract.crop)
        size = max(1, CHUNK_PIXELS // (height * width))
        pairs = zip(torch.split(output, size), torch.split(target, size), strict=True)
        return torch.cat([self._score(self._prepare(a), self._prepare(b)) for a, b in pairs])

    def _prepare(self, x: Tensor) -> Tensor:
        """Border off, onto the device, 8 bits."""
        crop = self.contract.crop
        x = x[..., crop : x.shape[-2] - crop, crop : x.shape[-1] - crop]
        return to_8bit(x.to(self.device, torch.float32))

    def _score(self, output: Tensor, target: Tensor) -> Tensor:
        """(B, 3, H, W) twice -> (B, 3)."""
        distance = self._lpips(output, target)
        if self.contract.y_channel:
            output, target = luma(output), luma(target)
        return torch.stack([psnr(output, target), ssim(output, target), distance], dim=1)
