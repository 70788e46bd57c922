"""Nothing is lost: size, georeference, tags, masks, colors and depth of the input are in the output."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.rpc import RPC
from rio_cogeo import cog_validate
from upscale_samples import picture, read, write_tiff

from orl_ldm import SteeredSR, upscale_file

REAL = ["RGB.byte.tif", "RGB2.byte.tif", "RGBA.uint16.tif", "alpha.tif", "all-nodata.tif", "float_nan.tif",
        "rotated.tif", "OSBS_029.tif", "rmnp-rgb.tif"]  # fmt: skip


def repeated(array: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(array, 4, -2), 4, -1)


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_keeps_what_it_knew(real: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    source, target = real(name), tmp_path / "out.tif"
    with rasterio.open(source) as before:
        window = (0, 0, min(before.width, 150), min(before.height, 140))
        if name in ("RGB.byte.tif", "RGB2.byte.tif", "alpha.tif", "RGBA.uint16.tif"):
            window = (before.width // 2 - 90, 50, 150, 140)
    upscale_file(source, target, method="bicubic", window=window)
    assert cog_validate(target, quiet=True)[0]
    part = rasterio.windows.Window(*window)
    with rasterio.open(source) as before, rasterio.open(target) as after:
        assert after.shape == (4 * window[3], 4 * window[2])
        assert after.crs == before.crs
        expected = before.window_transform(part) * Affine.scale(1 / 4)
        assert after.transform.almost_equals(expected, 1e-6)
        assert after.colorinterp == before.colorinterp
        assert after.dtypes == before.dtypes and after.descriptions == before.descriptions
        np.testing.assert_equal(after.nodatavals, before.nodatavals)
        assert after.mask_flag_enums == before.mask_flag_enums
        kept = {k: v for k, v in before.tags().items() if k not in ("OVR_RESAMPLING_ALG", "AREA_OR_POINT")}
        assert kept.items() <= after.tags().items()
        np.testing.assert_array_equal(after.read_masks() > 0, repeated(before.read_masks(window=part) > 0))
        invalid = after.read_masks() == 0
        np.testing.assert_array_equal(after.read()[invalid], repeated(before.read(window=part))[invalid])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_every_size_becomes_exactly_four_times_as_large(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int
) -> None:
    folder = tmp_path_factory.mktemp("size")
    source = write_tiff(folder / "in.tif", np.full((3, height, width), 90, np.uint8))
    upscale_file(source, folder / "out.tif", method="bicubic", tile=32)
    np.testing.assert_array_equal(read(folder / "out.tif"), np.full((3, 4 * height, 4 * width), 90))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (40, 33)])
def test_small_images_are_super_resolved(steered: SteeredSR, tmp_path: Path, height: int, width: int) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(height, width))
    assert upscale_file(source, tmp_path / "out.tif", steered=steered).tiles == 1
    assert read(tmp_path / "out.tif").shape == (3, 4 * height, 4 * width)


@pytest.mark.parametrize(("height", "width"), [(101, 153), (64, 97), (1, 400)])
def test_scenes_of_several_tiles_are_covered(steered: SteeredSR, tmp_path: Path, height: int, width: int) -> None:
    pixels = picture(height, width)
    source = write_tiff(tmp_path / "in.tif", pixels)
    report = upscale_file(source, tmp_path / "out.tif", steered=steered, tile=32)
    assert report.tiles > 1 and report.calls >= 1
    result = read(tmp_path / "out.tif")
    assert result.shape == (3, 4 * height, 4 * width)
    coarse = result.reshape(3, height, 4, width, 4).mean((2, 4))
    assert np.abs(coarse - pixels).mean() < 40  # no hole and no shift, though the network is untrained


def test_control_points_and_rational_polynomials_are_scaled(tmp_path: Path) -> None:
    pixels = picture(20, 30)
    points = [GroundControlPoint(row=r, col=c, x=10 + c, y=50 - r, z=0, id=f"{r}{c}") for r in (0, 20) for c in (0, 30)]
    source = write_tiff(tmp_path / "g.tif", pixels, transform=None, crs=None)
    with rasterio.open(source, "r+") as file:
        file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    upscale_file(source, tmp_path / "g4.tif", method="bicubic", window=(10, 4, 16, 16))
    with rasterio.open(tmp_path / "g4.tif") as file:
        found, crs = file.gcps
        assert crs.to_epsg() == 4326
        assert {(p.row, p.col, p.x, p.y) for p in found} == {
            (4 * (p.row - 4), 4 * (p.col - 10), p.x, p.y) for p in points
        }
    coefficients = [1.0, *[0.0] * 19]
    rpcs = RPC(
        height_off=10, height_scale=500, lat_off=50, lat_scale=0.1, line_den_coeff=coefficients,
        line_num_coeff=coefficients, line_off=9.5, line_scale=10, long_off=10, long_scale=0.1,
        samp_den_coeff=coefficients, samp_num_coeff=coefficients, samp_off=14.5, samp_scale=15,
    )  # fmt: skip
    source = write_tiff(tmp_path / "r.tif", pixels, transform=None, crs=None, rpcs=rpcs)
    upscale_file(source, tmp_path / "r4.tif", method="bicubic")
    with rasterio.open(tmp_path / "r4.tif") as file:
        assert (file.rpcs.line_off, file.rpcs.samp_off, file.rpcs.line_scale) == (39.5, 59.5, 40)


def test_names_units_scales_and_tags_are_carried_and_statistics_are_not(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(20, 20))
    with rasterio.open(source, "r+") as file:
        file.descriptions, file.units = ("r", "g & <b>", "b"), ("DN", "DN", "DN")
        file.scales, file.offsets = (0.1, 0.1, 0.1), (-1, -1, -1)
        file.update_tags(OWNER='"somebody" & <co>')
        file.update_tags(1, STATISTICS_MEAN="3", SENSOR="x")
    upscale_file(source, tmp_path / "out.tif", method="bicubic")
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.descriptions == ("r", "g & <b>", "b") and file.units == ("DN", "DN", "DN")
        assert file.scales == (0.1, 0.1, 0.1) and file.offsets == (-1, -1, -1)
        assert file.tags()["OWNER"] == '"somebody" & <co>'
        assert "STATISTICS_MEAN" not in file.tags(1) and file.tags(1)["SENSOR"] == "x"
        assert file.tags()["ORL_LDM_METHOD"] == "bicubic" and str(tmp_path) not in str(file.tags())


def test_nothing_of_nodata_bleeds_and_no_valid_pixel_becomes_nodata(steered: SteeredSR, tmp_path: Path) -> None:
    pixels = picture(60, 150)
    gap = np.zeros((60, 150), bool)
    gap[10:40, 50:] = True
    results = []
    for number, inside in enumerate((0, 255)):
        filled = np.where(gap, inside, pixels).astype(np.uint8)
        source = write_tiff(tmp_path / f"in{number}.tif", filled, nodata=inside)
        upscale_file(source, tmp_path / f"out{number}.tif", steered=steered, tile=64)
        results.append(read(tmp_path / f"out{number}.tif"))
        assert (results[-1] == inside).all(0).sum() == repeated(gap).sum()
    valid = ~repeated(gap)
    np.testing.assert_array_equal(*(np.where(valid, result.clip(1, 254), 7) for result in results))


def test_valid_zeros_stay_valid_and_overviews_see_no_masked_pixel(tmp_path: Path) -> None:
    pixels = picture(300, 300)
    pixels[:, :, :150] = 0  # black, and valid but for a part
    mask = np.full((300, 300), 255, np.uint8)
    mask[:, 200:] = 0
    pixels[:, :, 200:] = 255
    source = write_tiff(tmp_path / "in.tif", pixels, mask=mask)
    upscale_file(source, tmp_path / "out.tif", method="bicubic")
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.mask_flag_enums[0] == [MaskFlags.per_dataset]
        assert (file.dataset_mask()[:, :800] == 255).all() and (file.dataset_mask()[:, 800:] == 0).all()
        assert (file.read()[:, :, :590] == 0).all()
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as file:
        assert file.read()[:, :, 390:400].max() < 255  # beside the masked white


def test_all_nodata_costs_no_tile(steered: SteeredSR, real: Callable[[str], Path], tmp_path: Path) -> None:
    report = upscale_file(real("all-nodata.tif"), tmp_path / "out.tif", steered=steered, window=(0, 0, 71, 300))
    assert report.tiles == 0 and report.calls == 0
    assert not read(tmp_path / "out.tif").any()


def test_depths_give_one_picture_and_sixteen_bits_stay_sixteen(steered: SteeredSR, tmp_path: Path) -> None:
    pixels = picture(40, 50)
    depths = {"uint8": (pixels, 1), "uint16": (pixels.astype(np.uint16) * 257, 257), "float32": (pixels / 255, 1 / 255)}
    made = {}
    for name, (values, unit) in depths.items():
        source = write_tiff(tmp_path / f"{name}.tif", values.astype(name))
        upscale_file(source, tmp_path / f"{name}4.tif", steered=steered)
        made[name] = read(tmp_path / f"{name}4.tif") / unit
    assert np.abs(made["uint8"] - made["uint16"]).max() < 0.51
    assert np.abs(made["uint8"] - made["float32"].clip(0, 255)).max() < 0.51
    ramp = np.broadcast_to(np.linspace(1000, 5095, 64 * 64).reshape(1, 64, 64), (3, 64, 64)).astype(np.uint16)
    upscale_file(write_tiff(tmp_path / "ramp.tif", ramp), tmp_path / "ramp4.tif", steered=steered)
    assert len(np.unique(read(tmp_path / "ramp4.tif")[0])) > 1000


def test_int16_with_negative_values_and_a_given_range(tmp_path: Path) -> None:
    values = (picture(30, 30).astype(np.int16) - 128) * 10
    source = write_tiff(tmp_path / "in.tif", values, nodata=-32768)
    upscale_file(source, tmp_path / "out.tif", method="bicubic", range=(-1280, 1280))
    result = read(tmp_path / "out.tif")
    assert result.dtype == np.int16 and result.min() < -200
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.tags()["ORL_LDM_RANGE"] == "-1280.0,1280.0"


def test_nan_and_infinities_stay_where_they_are(steered: SteeredSR, tmp_path: Path) -> None:
    values = (picture(40, 40) / 255).astype(np.float32)
    values[:, 5, 5], values[:, 20, 20], values[:, 30, 8] = np.nan, np.inf, -np.inf
    upscale_file(write_tiff(tmp_path / "in.tif", values), tmp_path / "out.tif", steered=steered)
    result = read(tmp_path / "out.tif")
    np.testing.assert_array_equal(np.isfinite(result), repeated(np.isfinite(values)))
    assert (result[:, 80:84, 80:84] == np.inf).all() and np.nanmax(np.abs(result[np.isfinite(result)])) < 2


def test_three_of_more_bands_are_steered_in_the_order_of_their_colors(steered: SteeredSR, tmp_path: Path) -> None:
    pixels = picture(40, 40, 5)
    bgr = write_tiff(tmp_path / "bgr.tif", pixels)
    with rasterio.open(bgr, "r+") as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, *[ColorInterp.undefined] * 2]
    report = upscale_file(bgr, tmp_path / "bgr4.tif", steered=steered)
    assert any("bands 3, 2, 1 are super-resolved; 4, 5 get" in note for note in report.notes)
    rgb = write_tiff(tmp_path / "rgb.tif", pixels[[2, 1, 0]])
    upscale_file(rgb, tmp_path / "rgb4.tif", steered=steered)
    np.testing.assert_array_equal(read(tmp_path / "bgr4.tif")[[2, 1, 0]], read(tmp_path / "rgb4.tif"))
    assert read(tmp_path / "bgr4.tif").shape == (5, 160, 160)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_pictures_keep_their_kind(steered: SteeredSR, tmp_path: Path, mode: str, ending: str) -> None:
    image = Image.fromarray(picture(20, 30, 3).transpose(1, 2, 0))
    image = (
        Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
        if mode == "I;16"
        else image.convert(mode)
    )
    source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    try:
        image.save(source)
    except (OSError, ValueError):
        pytest.skip(f"PIL writes no {ending} of {mode}")
    saved = Image.open(source).mode
    report = upscale_file(source, target, steered=steered)
    made = Image.open(target)
    assert made.size == (120, 80) and made.format == Image.open(source).format
    assert made.mode == {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(saved, saved)
    assert any("are written as" in note for note in report.notes) == (made.mode != saved)


def test_orientation_and_color_profile_of_a_photograph(tmp_path: Path) -> None:
    image = Image.fromarray(picture(20, 30).transpose(1, 2, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "in.jpg", exif=exif, icc_profile=b"not really one")
    upscale_file(tmp_path / "in.jpg", tmp_path / "out.jpg", method="bicubic")
    made = Image.open(tmp_path / "out.jpg")
    assert made.size == (80, 120) and made.info["icc_profile"] == b"not really one"
