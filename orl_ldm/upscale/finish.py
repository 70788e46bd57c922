"""The last step: pieces become the target, written beside it, checked, synced and renamed."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil

from orl_ldm.errors import UserError
from orl_ldm.upscale.picture import FORMATS, save_picture
from orl_ldm.upscale.work import sync

TIFF_ENDINGS = (".tif", ".tiff")

#: Compressions that give back what was written, and those of them that a predictor helps.
LOSSLESS = ("DEFLATE", "ZSTD", "LZW", "NONE", "LZMA", "PACKBITS")
PREDICTED = ("DEFLATE", "ZSTD", "LZW")

#: Files that belong to a TIFF of the same name, and are wrong once it is replaced.
SIDECARS = ("{name}.ovr", "{name}.msk", "{name}.msk.ovr", "{name}.aux.xml", "{stem}.aux", "{stem}.tfw")


def kind_of(target: Path) -> str:
    """TIFF, PNG, JPEG or WEBP by the ending of a name. Raises UserError for any other ending."""
    ending = target.suffix.lower()
    if ending in TIFF_ENDINGS:
        return "TIFF"
    if ending not in FORMATS:
        known = ", ".join([*TIFF_ENDINGS, *FORMATS])
        raise UserError(f"{target.name}: the ending says what is written; give one of {known}")
    return FORMATS[ending]


def write_tiff(mosaic: Path, staged: Path, cog: bool, creation: Mapping[str, str]) -> None:
    """Write a mosaic as a cloud-optimized GeoTIFF, or a tiled one. Raises UserError where GDAL cannot."""
    options = {"COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER", **creation}
    floats = "Float32" in mosaic.read_text(encoding="utf-8")[:4000]
    if cog:
        options = {"OVERVIEW_RESAMPLING": "AVERAGE", **options}
        if options["COMPRESS"] in PREDICTED:
            options = {"PREDICTOR": "YES", **options}
    else:
        options = {"TILED": "YES", **options}
        if options["COMPRESS"] in PREDICTED:
            options = {"PREDICTOR": "3" if floats else "2", **options}
    text = " ".join(f"{name}={value}" for name, value in options.items())
    complaints = _Complaints()
    logging.getLogger("rasterio").addHandler(complaints)
    try:
        rasterio.shutil.copy(mosaic, staged, driver="COG" if cog else "GTiff", strict=True, **options)
    except Exception as error:  # GDAL's errors share no class with rasterio's
        raise UserError(f"GDAL cannot write the result with {text}: {str(error).splitlines()[0]}") from error
    finally:
        logging.getLogger("rasterio").removeHandler(complaints)
    if complaints.said:
        raise UserError(f"GDAL does not know all of {text}: {complaints.said[0]}")


class _Complaints(logging.Handler):
    """Creation options that GDAL ignores: it only warns of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is said of options."""
        if "creation option" in (text := record.getMessage()) or "not recognised" in text:
            self.said.append(text)


def write_picture(mosaic: Path, staged: Path, kind: str, extra: Mapping[str, Any]) -> None:
    """Write a mosaic as a PNG, JPEG or WebP."""
    with rasterio.open(mosaic) as dataset:
        save_picture(dataset.read(), kind, staged, dict(extra))


def read_back(mosaic: Path, written: Path, lossless: bool) -> None:
    """Raise OSError unless the written file can be read as a whole and, if lossless, has the mosaic's pixels."""
    with rasterio.open(mosaic) as expected, rasterio.open(written) as found:
        if (expected.shape, expected.count, expected.dtypes) != (found.shape, found.count, found.dtypes):
            raise OSError(f"{written.name} has another size or type than was written")
        if expected.crs != found.crs or not expected.transform.almost_equals(found.transform):
            raise OSError(f"{written.name} has another georeference than was written")
        for _, window in found.block_windows(1):
            pixels = found.read(window=window)
            if lossless and not np.array_equal(
                pixels, expected.read(window=window), equal_nan=pixels.dtype.kind == "f"
            ):
                raise OSError(f"{written.name} has other pixels than were written")


def put_in_place(staged: Path, target: Path) -> None:
    """Sync a written file and give it its final name; what belonged to the file before it goes."""
    sync(staged)
    staged.replace(target)
    for pattern in SIDECARS:
        (target.parent / pattern.format(name=target.name, stem=target.stem)).unlink(missing_ok=True)
    sync(target.parent)
