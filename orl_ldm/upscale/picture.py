"""PNG, JPEG and WebP: decoded and written by PIL, in between a TIFF in memory."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from orl_ldm.errors import UserError
from orl_ldm.upscale.options import readable

#: Formats by the endings of names, and the largest side that each can hold.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LARGEST = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383}
SAVE: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "exact": True},
}

#: PIL's modes that are taken as they are; all others are converted.
MODES = {
    "L": [ColorInterp.gray],
    "I;16": [ColorInterp.gray],
    "LA": [ColorInterp.gray, ColorInterp.alpha],
    "RGB": [ColorInterp.red, ColorInterp.green, ColorInterp.blue],
    "RGBA": [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha],
}


@contextmanager
def open_picture(path: Path, memory: int) -> Iterator[tuple[str, Any, tuple[str, ...], dict[str, Any]]]:
    """(format, dataset, notes, what to save with) of a picture. Raises UserError for what is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=list(SAVE))
    except UnidentifiedImageError:
        raise UserError(f"{path.name} is no PNG, JPEG, WebP or TIFF, whatever its name says") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path.name} declares too many pixels for a picture: make it a TIFF, read in parts") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path.name} cannot be read: {error}") from None
    with image:
        kind, mode = str(image.format), image.mode
        if (need := image.width * image.height * 4 * 20) > memory:
            raise UserError(
                f"{path.name} of {image.width}x{image.height} pixels needs {readable(need)} of memory, as {kind} is "
                f"written in one piece, and {readable(memory)} are allowed: raise --memory, or make it a TIFF"
            )
        if getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{path.name} is an animation: give one of its {image.n_frames} frames")  # type: ignore[attr-defined]
        if kind == "PNG" and image.tile and ";16B" in str(image.tile[0][3]) and mode != "I;16":
            raise UserError(f"{path.name} is a PNG of 16-bit color: make it a TIFF, which keeps all of its bits")
        try:
            upright = ImageOps.exif_transpose(image)
            if upright.mode not in MODES:
                upright = upright.convert(_mode(upright))
        except (OSError, SyntaxError, ValueError, MemoryError) as error:
            raise UserError(f"{path.name} is truncated or damaged: {error}") from None
        notes = () if upright.mode == mode else (f"{mode} pixels are written as {upright.mode}",)
        extra = {"icc_profile": image.info.get("icc_profile") if mode == upright.mode else None}
        pixels = np.atleast_3d(np.asarray(upright)).transpose(2, 0, 1)
        roles = MODES[upright.mode]
    with MemoryFile() as file:
        shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
        with file.open(driver="GTiff", alpha="yes" if len(roles) in (2, 4) else "no", **shape) as writer:
            writer.write(pixels)
            writer.colorinterp = roles
        with file.open() as dataset:
            yield kind, dataset, notes, extra


def _mode(image: Image.Image) -> str:
    transparent = "transparency" in image.info or image.mode in ("PA", "RGBa", "La")
    if image.mode in ("1", "La"):
        return "LA" if transparent else "L"
    return "RGBA" if transparent else "RGB"


def require_picture(kind: str, size: tuple[int, int], roles: list[ColorInterp], dtype: str, name: str) -> None:
    """Raise UserError unless bands with these roles, of (height, width) pixels, can be written as this format."""
    mode = next(
        (mode for mode, known in MODES.items() if known == roles and (mode == "I;16") == (dtype == "uint16")), ""
    )
    if not mode or dtype not in ("uint8", "uint16"):
        raise UserError(f"{name}: {len(roles)} bands of {dtype} cannot be written as {kind}: name a .tif")
    if (kind, mode) in (("JPEG", "LA"), ("JPEG", "RGBA"), ("JPEG", "I;16"), ("WEBP", "I;16")):
        raise UserError(f"{name}: {kind} cannot hold {mode} pixels: name a .png or a .tif")
    if max(size) > LARGEST[kind]:
        raise UserError(
            f"{name}: {kind} holds at most {LARGEST[kind]} pixels a side, needed are {max(size)}: name a .tif"
        )


def save_picture(pixels: npt.NDArray[Any], kind: str, target: Path, extra: dict[str, Any]) -> None:
    """Write (n, h, w) pixels."""
    image = Image.fromarray(
        np.ascontiguousarray(pixels.transpose(1, 2, 0)).squeeze(2)
        if len(pixels) == 1
        else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    )
    image.save(target, format=kind, **SAVE[kind], **{key: value for key, value in extra.items() if value})
