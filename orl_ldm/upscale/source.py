"""An input file: its pixels, which of them are valid, and what else it knows.

TIFFs are read by rasterio, a part at a time. PNG, JPEG and WebP are decoded by PIL in one piece and from there on
treated as a TIFF in memory.

Legend: n bands, h x w LR pixels. A part is given by (begin, end) of its rows and of its columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from blake3 import blake3
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from orl_ldm.errors import UserError
from orl_ldm.upscale.picture import open_picture

Span = tuple[int, int]
Array = npt.NDArray[Any]

DTYPES = ("uint8", "uint16", "int16", "float32")
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: How far, in LR pixels, invalid pixels take the value of the nearest valid one; beyond they take the scene's mean.
REACH = 32


@dataclass(frozen=True)
class Part:
    """A rectangle of a scene."""

    raw: Array  # (n, h, w), as it is in the file
    valid: npt.NDArray[np.bool_]  # (n, h, w)


@dataclass(frozen=True)
class Source:
    """An open input file. `bands` are the data bands (all but alpha), `steered` one or three of them; from 1."""

    path: Path
    kind: str  # TIFF, PNG, JPEG or WEBP
    dataset: Any
    bands: tuple[int, ...]
    steered: tuple[int, ...]
    alpha: int | None
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)  # what PIL needs to write the picture as it was

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.dataset.height, self.dataset.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of every band."""
        dtype: np.dtype[Any] = np.dtype(self.dataset.dtypes[0])
        return dtype

    @property
    def has_mask_band(self) -> bool:
        """Whether validity is a band of its own that is neither alpha nor a nodata value."""
        return bool(self.dataset.mask_flag_enums[0] == [MaskFlags.per_dataset])

    def read(self, rows: Span, columns: Span) -> Part:
        """Pixels and their validity. Raises UserError where the file is damaged."""
        window = Window(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
        try:
            raw = self.dataset.read(window=window)
            flags = self.dataset.mask_flag_enums
            valid = np.ones(raw.shape, bool)
            if any(MaskFlags.nodata in band or band == [MaskFlags.per_dataset] for band in flags):
                valid &= self.dataset.read_masks(window=window) > 0
        except (RasterioError, OSError, MemoryError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(
                f"{self.path.name} cannot be read at rows {rows[0]} to {rows[1]}; it is truncated or damaged ({reason})"
            ) from error
        if self.alpha is not None:
            valid &= raw[self.alpha - 1] != 0
            valid[self.alpha - 1] = True
        if raw.dtype.kind == "f":
            valid &= np.isfinite(raw)
        return Part(raw, valid)

    def filled(self, rows: Span, columns: Span, means: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """(n, h, w) float32 without gaps, and where any data band is valid, (h, w).

        Invalid pixels take the nearest valid value within REACH, else the band's mean: a function of the place alone,
        so that parts agree wherever they are cut.
        """
        height, width = self.size
        outer = [(max(0, a - REACH), min(end, b + REACH)) for (a, b), end in ((rows, height), (columns, width))]
        part = self.read(outer[0], outer[1])
        values = part.raw.astype(np.float32)
        done: dict[bytes, Array] = {}
        for band in range(len(values)):
            if (valid := part.valid[band]).all():
                continue
            key = blake3(np.packbits(valid).tobytes()).digest()
            if key not in done:
                done[key] = _nearest(valid)
            values[band] = np.where(
                done[key][0] >= 0, values[band][tuple(np.maximum(done[key], 0))], np.float32(means[band])
            )
        inner = (
            slice(rows[0] - outer[0][0], rows[1] - outer[0][0]),
            slice(columns[0] - outer[1][0], columns[1] - outer[1][0]),
        )
        anywhere = part.valid[[band - 1 for band in self.bands]].any(0)
        return values[:, *inner], np.asarray(anywhere)[inner]


def _nearest(valid: npt.NDArray[np.bool_]) -> Array:
    """(2, h, w) row and column of the nearest valid pixel within REACH, -1 where there is none."""
    if not valid.any():
        return np.full((2, *valid.shape), -1)
    distance, index = distance_transform_edt(~valid, return_indices=True)
    return np.where(distance <= REACH, index, -1)


@contextmanager
def open_source(path: Path, bands: tuple[int, ...], memory: int) -> Iterator[Source]:
    """Open an input by its content, whatever its name ends in. Raises UserError for what cannot be upscaled."""
    try:
        with path.open("rb") as file:
            signature = file.read(4)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if signature in TIFF_SIGNATURES:
        try:
            dataset = rasterio.open(path, driver="GTiff")
        except RasterioError as error:
            raise UserError(f"{path.name} is a TIFF that cannot be opened: {str(error).splitlines()[0]}") from None
        with dataset:
            yield _described(path, "TIFF", dataset, bands, (), {})
    else:
        with open_picture(path, memory) as (kind, dataset, notes, extra):
            yield _described(path, kind, dataset, bands, notes, extra)


def _described(
    path: Path, kind: str, dataset: Any, chosen: tuple[int, ...], notes: tuple[str, ...], extra: dict[str, Any]
) -> Source:
    if (dtype := dataset.dtypes[0]) not in DTYPES or len(set(dataset.dtypes)) > 1:
        raise UserError(f"{path.name} has values of type {dtype}: convert it to one of {', '.join(DTYPES)}")
    roles = list(dataset.colorinterp)
    if ColorInterp.palette in roles:
        raise UserError(f"{path.name} has a color table: make it RGB first (gdal_translate -expand rgb)")
    if dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK" or ColorInterp.cyan in roles:
        raise UserError(f"{path.name} is CMYK: make it RGB first")
    alpha = roles.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in roles else None
    bands = tuple(band for band in range(1, dataset.count + 1) if band != alpha)
    if wrong := [band for band in chosen if band not in bands]:
        raise UserError(f"--bands names band {wrong[0]}, but the data bands of {path.name} are {_listed(bands)}")
    colors = [roles.index(role) + 1 for role in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if role in roles]
    if not bands:
        raise UserError(f"{path.name} has no data band")
    steered = chosen or (tuple(colors) if len(colors) == 3 else bands[:3] if len(bands) >= 3 else bands[:1])
    if others := [band for band in bands if band not in steered]:
        said = f"bands {_listed(steered)} are super-resolved; {_listed(others)} get bicubic and the luminance detail"
        notes = (*notes, said)
    return Source(path, kind, dataset, bands, steered, alpha, notes, extra)


def _listed(bands: Any) -> str:
    return ", ".join(str(band) for band in bands)


def digest_of(source: Source) -> str:
    """BLAKE3 over the file and the files beside it that belong to it (masks, metadata)."""
    whole = blake3()
    names = sorted({source.path, *(Path(name) for name in source.dataset.files if Path(name).is_file())})
    for name in names:
        if name.suffix != ".ovr":
            whole.update(digest_of_file(name).encode())
    return whole.hexdigest()


def digest_of_file(path: Path) -> str:
    """BLAKE3 of a file, hex."""
    digest = blake3()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
