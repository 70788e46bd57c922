"""Read one image file as 8-bit RGB.

Pillow reads 8-bit images. It drops half of the bits of deeper colour images without a word, so those go to rasterio
(the extra `upscale`). Deeper images are scaled by the range of their numbers, never by their content: 16 bits are
divided by 65535, floats are taken to be in [0, 1]. Two kinds are refused, because their white is not known: numbers
without a range of their own (32-bit integers, floats beyond [0, 1]), and 16-bit images that leave the upper half of
their range empty. The latter usually hold 10 to 14 bits and would come out nearly black.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS_PER_SAMPLE = 258  # TIFF's tag
RESCALE = "scale them to 8 bits first, for example with gdal_translate -ot Byte -scale 0 WHITE 0 255"


def read_pixels(file: Path | bytes) -> Pixels:
    """(H, W, 3) uint8 of an image file or of its bytes, rotated upright as its EXIF data say; alpha is dropped.

    Raises ValueError or OSError, with the reason, for files that cannot be read and for depths that are refused.
    """
    content = file if isinstance(file, bytes) else file.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            bits = _bits(image)
            if bits <= 8:
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
            if image.mode.startswith(("I", "F")):  # one channel
                x = np.asarray(ImageOps.exif_transpose(image))
                unsigned = image.mode.startswith("I;16") or image.format == "PNG"  # ("I" in older versions of Pillow)
                return _to_8bit(x.astype(np.uint16) if unsigned else x, bits)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large()) from error
    except UnidentifiedImageError:
        if content[:4] not in TIFF_STARTS:
            raise ValueError("it is no image of a format that Pillow reads") from None
    return _to_8bit(_deep(content), 16)


def _bits(image: Any) -> int:
    """Bits a channel, as the file says; Pillow's mode does not tell."""
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))))
    codec = str(image.tile[0][3]) if image.tile else ""
    if ";16" in codec:
        return 16
    return 32 if image.mode.startswith(("I", "F")) else 8


def _deep(content: bytes) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) of any depth, by rasterio."""
    try:
        import rasterio
    except ImportError:
        raise ValueError(
            "its channels have more than 8 bits, which needs the extra: pip install -e '.[upscale]'; or " + RESCALE
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.MemoryFile(content) as memory, memory.open(driver=["GTiff", "PNG"]) as data:
                if 2 * (Image.MAX_IMAGE_PIXELS or np.inf) < data.width * data.height:
                    raise ValueError(_too_large())
                if data.count not in (1, 3, 4):
                    raise ValueError(f"it has {data.count} bands: keep three, red, green and blue (gdal_translate -b)")
                bands: npt.NDArray[Any] = data.read([1, 2, 3] if data.count > 1 else 1)
        except rasterio.errors.RasterioError as error:
            raise ValueError(str(error).splitlines()[0]) from error
    return bands if bands.ndim == 2 else bands.transpose(1, 2, 0)


def _to_8bit(x: npt.NDArray[Any], bits: int) -> Pixels:
    """(H, W) or (H, W, 3) of any dtype -> (H, W, 3) uint8."""
    if x.dtype.kind == "f":
        low, high = float(x.min()), float(x.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"its pixels are floats from {low:.4g} to {high:.4g}, not in [0, 1]: {RESCALE}")
        scaled = x.astype(np.float64)
    elif x.dtype == np.uint8:
        scaled = x / 255
    elif x.dtype == np.uint16:
        top = 2**bits - 1
        if 2 * int(x.max()) <= top:
            raise ValueError(
                f"its {bits}-bit numbers reach only {x.max()} of {top}, so its white is unknown: {RESCALE}"
            )
        scaled = x / top
    else:
        raise ValueError(f"its pixels are {x.dtype} numbers, whose white is unknown: {RESCALE}")
    levels = np.round(scaled * 255).astype(np.uint8)
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)


def _too_large() -> str:
    megapixels = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return f"it has more than {megapixels:.0f} megapixels: cut it into tiles first (gdal_retile.py -ps 2048 2048)"
