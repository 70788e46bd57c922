"""Files that the tests of upscale make and read."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine


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
