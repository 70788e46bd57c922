"""LPIPS with AlexNet, v0.1.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".

The distance is the sum over five layers of the spatial mean of w . (a - b)^2, where a and b are the two images'
ReLU features scaled to unit length at every pixel, and w >= 0 is learned from human judgements (the linear heads,
shipped by the `lpips` package).
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from orl_ldm.errors import UserError
from orl_ldm.metrics.contract import SMALLEST_LPIPS, check_size
from orl_ldm.metrics.precision import no_autocast, working_dtype
from orl_ldm.metrics.tiles import Span, spans
from orl_ldm.metrics.weights import lpips_weights

# AlexNet's convolutions: number within torchvision's `features`, stride, padding, max-pooling before it
LAYERS = ((0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False))
# ImageNet's mean and standard deviation, moved from [0, 1] to [-1, 1]; rounded as in the reference
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
STRIDES = (4, 8, 16, 16, 16)  # pixels from one position of a layer to the next
CONTEXT = 96  # pixels beyond a tile that its positions may see: position m of the last layer, 16 m - 66 to 16 m + 96
EPSILON = 1e-10  # keeps all-zero features finite, as in the reference


class Lpips(nn.Module):
    """Perceptual distance of image pairs: `Lpips(device)(output, target)`. Always in inference, never trained.

    Construction reads the backbone's weights, fetching them once per user (see `lpips_weights`).

    Raises:
        UserError: the weights are neither cached nor in reach.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        backbone, heads = load_file(lpips_weights()), _linear_heads()
        for i, (number, *_) in enumerate(LAYERS):
            self.register_buffer(f"weight{i}", backbone[f"{number}.weight"])
            self.register_buffer(f"bias{i}", backbone[f"{number}.bias"])
            self.register_buffer(f"head{i}", heads[i])
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.dtype = working_dtype(torch.device(device))
        self.to(device, self.dtype)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair, 0 for identical images; about 0.7 is a heavily distorted one.

        Args:
            output, target: float (B, 3, H, W), RGB in [0, 1] (scaled to [-1, 1] here), on this module's device.

        Returns:
            float32 (B,).

        Raises:
            UserError: the images are smaller than AlexNet can see.
        """
        return torch.stack([layer.mean((1, 2)) for layer in self.maps(output, target)]).sum(0).float()

    @torch.no_grad()
    def maps(self, output: Tensor, target: Tensor) -> list[Tensor]:
        """The distance at every position of each of the five layers: (B, h, w) each, about H/4, H/8 and thrice H/16.

        The distance of a pair is the sum of the maps' means.
        """
        height, width = output.shape[-2:]
        check_size("LPIPS", (height, width), SMALLEST_LPIPS)
        rows = []
        for y in spans(height, CONTEXT, STRIDES[-1]):
            tiles = [self._tile(output, target, y, x) for x in spans(width, CONTEXT, STRIDES[-1])]
            rows.append([torch.cat(layer, dim=2) for layer in zip(*tiles, strict=True)])
        return [torch.cat(layer, dim=1) for layer in zip(*rows, strict=True)]

    def _tile(self, output: Tensor, target: Tensor, y: Span, x: Span) -> list[Tensor]:
        """The maps of a tile, whose positions see what they see in the whole image."""
        maps = []
        with no_autocast(output.device):
            pairs = torch.cat([image[..., y.read, x.read] for image in (output, target)])  # (2B, 3, h, w)
            for i, features in enumerate(self._features(pairs.to(self.dtype) * 2 - 1)):
                a, b = features.chunk(2)  # (B, C, h, w) each
                distance = F.conv2d((a - b).square(), self.get_buffer(f"head{i}"))[:, 0]
                maps.append(distance[:, y.own(STRIDES[i]), x.own(STRIDES[i])])
        return maps

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """AlexNet's five ReLU outputs (N, C, h, w) of x (N, 3, H, W) in [-1, 1], of unit length at every pixel."""
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        for i, (_, stride, padding, pool) in enumerate(LAYERS):
            if pool:
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            x = F.conv2d(x, self.get_buffer(f"weight{i}"), self.get_buffer(f"bias{i}"), stride, padding).relu()
            yield x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)


def _linear_heads() -> list[Tensor]:
    """The five heads w of LPIPS v0.1 as (1, C, 1, 1) convolutions, from the installed `lpips` package."""
    package = find_spec("lpips")  # found, not imported: importing it pulls in torchvision's models
    if package is None or package.origin is None:
        raise UserError("LPIPS's linear heads are missing: install the package `lpips` (pip install lpips)")
    heads = Path(package.origin).parent / "weights" / "v0.1" / "alex.pth"
    return list(torch.load(heads, map_location="cpu", weights_only=True).values())
