"""Depth is not lost: deep images are scaled by their range, or refused by name."""

import io
import struct
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from orl_ldm.errors import UserError
from orl_ldm.images.pixels import read_pixels
from orl_ldm.images.sources import open_images

FULL = (np.arange(40 * 48 * 3).reshape(40, 48, 3) * 11 + 2000).astype(np.uint16)
EXPECTED = np.round(FULL / 65535 * 255).astype(np.uint8)


def png(x: npt.NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG of (H, W, 1 to 4 channels), which Pillow cannot write."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[x.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    )
    parts = [
        struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in (*chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(x: npt.NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, x, **options)
    return file.getvalue()


DEEP_COLOUR = {
    "png": png(FULL),
    "png with alpha": png(np.dstack([FULL, FULL[..., :1]])),
    "tiff": tiff(FULL),
    "deflated tiff": tiff(FULL, compression="zlib"),
    "big-endian tiff": tiff(FULL, byteorder=">"),
    "planar tiff": tiff(FULL.transpose(2, 0, 1), planarconfig="separate", photometric="rgb"),
    "tiff with alpha": tiff(np.dstack([FULL, FULL[..., :1]]), photometric="rgb", extrasamples=["unassalpha"]),
}


@pytest.mark.parametrize("kind", DEEP_COLOUR)
def test_sixteen_bit_colour_keeps_its_depth(kind: str) -> None:
    pytest.importorskip("rasterio")
    np.testing.assert_array_equal(read_pixels(DEEP_COLOUR[kind]), EXPECTED)


@pytest.mark.parametrize("kind", DEEP_COLOUR)
def test_without_rasterio_sixteen_bit_colour_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ValueError, match=r"more than 8 bits, which needs the extra.*gdal_translate -ot Byte"):
        read_pixels(DEEP_COLOUR[kind])


@pytest.mark.parametrize("content", [png(FULL[..., :1]), tiff(FULL[..., 0]), tiff(FULL[..., 0], byteorder=">")])
def test_sixteen_bit_grey_is_read_without_rasterio(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    np.testing.assert_array_equal(read_pixels(content), EXPECTED[..., :1].repeat(3, axis=2))


def test_floats_in_zero_to_one_are_scaled() -> None:
    grey = (FULL[..., 0] / 65535).astype(np.float32)
    np.testing.assert_array_equal(read_pixels(tiff(grey)), EXPECTED[..., :1].repeat(3, axis=2))
    pytest.importorskip("rasterio")
    np.testing.assert_array_equal(read_pixels(tiff((FULL / 65535).astype(np.float32), photometric="rgb")), EXPECTED)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tiff(FULL[..., 0] >> 4), r"16-bit numbers reach only \d+ of 65535"),
        (png(FULL[..., :1] >> 6), r"16-bit numbers reach only \d+ of 65535"),
        (tiff(FULL[..., 0].astype(np.int32)), "int32 numbers, whose white is unknown"),
        (tiff(FULL[..., 0].astype(np.uint32)), "whose white is unknown"),
        (tiff((FULL[..., 0] >> 1).astype(np.int16)), "whose white is unknown"),
        (tiff(FULL[..., 0].astype(np.float32)), "floats from 2000 to .*, not in"),
        (tiff(np.full((8, 8), np.nan, np.float32)), "floats from nan"),
    ],
)
def test_a_white_that_is_unknown_is_not_guessed(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"{sentence}.*gdal_translate"):
        read_pixels(content)


@pytest.mark.parametrize("x", [FULL >> 4, FULL.astype(np.int32), FULL.astype(np.float64)])
def test_nor_is_that_of_colour_images(x: npt.NDArray[Any]) -> None:
    pytest.importorskip("rasterio")
    with pytest.raises(ValueError, match=r"gdal_translate"):
        read_pixels(tiff(x, photometric="rgb"))


def test_the_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "pan.tif").write_bytes(tiff(FULL[..., 0] >> 4))
    with pytest.raises(UserError, match="could not read the image 'train/a/pan': its 16-bit numbers reach only"):
        open_images(str(tmp_path), "train")[0].load()


def test_eight_bits_are_read_as_they_are_whatever_the_mode() -> None:
    colour = EXPECTED.copy()
    for mode in ("RGB", "RGBA", "CMYK", "P", "L", "LA", "1"):
        file = io.BytesIO()
        Image.fromarray(colour).convert(mode).save(file, "TIFF")
        np.testing.assert_array_equal(read_pixels(file.getvalue()), np.asarray(Image.open(file).convert("RGB")))


def test_images_beyond_pillow_s_limit_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("1", (2000, 1500)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    deep = tiff(np.zeros((1500, 2000, 3), np.float32), photometric="rgb")
    for content in (file.getvalue(), *([deep] if find_spec("rasterio") else [])):
        with pytest.raises(ValueError, match=r"more than 2 megapixels: cut it into tiles first \(gdal_retile"):
            read_pixels(content)
