"""A photograph, its degraded versions and AlexNet's weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from skimage import data
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from orl_ldm.errors import UserError
from orl_ldm.images.resample import to_8bit
from orl_ldm.metrics import lpips_weights


@pytest.fixture(scope="session")
def target() -> Tensor:
    """Four 96 x 96 crops of a photograph, 8-bit levels: (4, 3, 96, 96) in [0, 1]."""
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255  # type: ignore[no-untyped-call]
    return torch.stack([photo[:, y : y + 96, x : x + 96] for y, x in ((0, 180), (80, 200), (200, 300), (380, 60))])


@pytest.fixture(scope="session")
def output(target: Tensor) -> Tensor:
    """The same crops blurred and with noise, a little more of it from image to image; 8-bit levels."""
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    strength = torch.tensor([0.005, 0.01, 0.03, 0.08])[:, None, None, None]
    return to_8bit(gaussian_blur(target, [7, 7], [1.0, 1.0]) + strength * noise)


@pytest.fixture(scope="session")
def weights_file() -> Path:
    """AlexNet's weights, fetched if need be: without a network and a cache these tests have nothing to say."""
    try:
        return lpips_weights()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def backbone(weights_file: Path) -> dict[str, Tensor]:
    """The tensors themselves, under torchvision's names within `features`."""
    return load_file(weights_file)
