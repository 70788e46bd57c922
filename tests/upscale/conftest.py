"""Real small GeoTIFFs where they are, made files, and a steered model that takes milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from orl_ldm import SteeredSR
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.spaces import spec
from orl_ldm.policy import BetaPolicy, save_policy
from orl_ldm.reward import setting

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT / "data" / "geotiff", ROOT.parent / "shared" / "data" / "geotiff")


@pytest.fixture
def real() -> Callable[[str], Path]:
    """A real file by its name; the test is skipped where the files are not."""

    def find(name: str) -> Path:
        for place in PLACES:
            if (place / name).exists():
                return place / name
        pytest.skip(f"{name} is neither in data/geotiff nor in ../shared/data/geotiff")

    return find


@pytest.fixture(scope="session")
def steered(ldm: LDM) -> SteeredSR:
    """The tiny LDM under an untrained policy."""
    torch.manual_seed(0)
    return SteeredSR(ldm, BetaPolicy(spec(), (8,)), SamplerConfig(nfe_max=2), setting("balanced"))


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained policy as a folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy")
    save_policy(BetaPolicy(spec(), (8,)), folder, {})
    return folder


def picture(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    """(bands, height, width) uint8, smooth with some texture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, bands, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[0]
    noisy = smooth * 180 + 30 + 20 * torch.rand(bands, height, width, generator=generator)
    return noisy.clamp(1, 254).byte().numpy()


def write_tiff(path: Path, pixels: np.ndarray[Any, Any], **profile: Any) -> Path:
    """Write (bands, h, w) as a GeoTIFF."""
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 400000, 0, -0.5, 5000000)}
    shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    mask = profile.pop("mask", None)
    with rasterio.open(path, "w", driver="GTiff", **{**place, **shape, **profile}) as file:
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    return path


def read(path: Path) -> np.ndarray[Any, Any]:
    """All bands."""
    with rasterio.open(path) as file:
        return file.read()  # type: ignore[no-any-return]
