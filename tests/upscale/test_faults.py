"""Faults give a clear sentence or the right result, and never a partial file under the final name."""

import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from upscale_samples import picture, read, write_tiff

from orl_ldm import SteeredSR, upscale_file
from orl_ldm.errors import UserError
from orl_ldm.upscale import file, finish
from orl_ldm.upscale.engine import Engine


def refused(complaint: str, source: Path, target: Path, **options: Any) -> None:
    """The call is refused with this sentence, and nothing lies under the target's name."""
    before = target.read_bytes() if target.is_file() else None
    with pytest.raises(UserError, match=complaint):
        upscale_file(source, target, **{"method": "bicubic", **options})
    assert (target.read_bytes() if target.is_file() else None) == before


def truncated(source: Path, target: Path, share: float = 0.6) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def test_damaged_files(tmp_path: Path) -> None:
    whole = write_tiff(tmp_path / "whole.tif", picture(300, 300), tiled=True, blockxsize=64, blockysize=64)
    refused("truncated or damaged", truncated(whole, tmp_path / "cut.tif"), tmp_path / "out.tif")
    Image.fromarray(picture(200, 200).transpose(1, 2, 0)).save(tmp_path / "whole.png")
    refused("truncated or damaged", truncated(tmp_path / "whole.png", tmp_path / "cut.png"), tmp_path / "out.png")
    (tmp_path / "text.tif").write_text("no image")
    refused("is no PNG, JPEG, WebP or TIFF, whatever", tmp_path / "text.tif", tmp_path / "out.tif")
    (tmp_path / "empty.tif").touch()
    refused("is no PNG", tmp_path / "empty.tif", tmp_path / "out.tif")
    refused("cannot be read: No such file", tmp_path / "missing.tif", tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


def test_a_wrong_ending_of_the_input_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(picture(20, 20).transpose(1, 2, 0)).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "named.tif")
    upscale_file(tmp_path / "named.tif", tmp_path / "out.png", method="bicubic")
    assert Image.open(tmp_path / "out.png").size == (80, 80)
    refused("the ending says what is written", tmp_path / "named.tif", tmp_path / "out.bmp")


def test_declared_sizes_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"count": 3, "height": 100_000, "width": 100_000, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "b.tif", "w", driver="GTiff", sparse_ok=True, tiled=True, compress="deflate", **shape
    ):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**11))
    refused(r"has 100.0 GB free, and up to 1.2 TB are needed", tmp_path / "b.tif", tmp_path / "out.tif")
    header = b"\x00\x01\x86\xa0\x00\x01\x86\xa0\x08\x02\x00\x00\x00"
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0d" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "b.png").write_bytes(png + b"\x00\x00\x00\x00IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big"))
    refused("declares too many pixels for a picture", tmp_path / "b.png", tmp_path / "out.png")
    Image.new("RGB", (1000, 1000)).save(tmp_path / "c.png")
    refused("raise --memory, or make it a TIFF", tmp_path / "c.png", tmp_path / "out.png", memory=10**7)


def test_colors_that_are_none(tmp_path: Path) -> None:
    palette = write_tiff(tmp_path / "p.tif", picture(20, 20, 1), photometric="palette")
    with rasterio.open(palette, "r+") as opened:
        opened.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    refused("has a color table", palette, tmp_path / "out.tif")
    Image.fromarray(picture(20, 20).transpose(1, 2, 0)).convert("CMYK").save(tmp_path / "cmyk.tif")
    refused("is CMYK: make it RGB", tmp_path / "cmyk.tif", tmp_path / "out.tif")
    doubles = write_tiff(tmp_path / "d.tif", picture(20, 20).astype(np.float64))
    refused("values of type float64: convert it", doubles, tmp_path / "out.tif")


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(20, 20))
    refused("is the input itself", source, source, overwrite=True)
    (tmp_path / "link.tif").hardlink_to(source)
    refused("is the input itself", source, tmp_path / "link.tif", overwrite=True)
    (tmp_path / "there.tif").write_bytes(b"precious")
    refused("exists already: give --overwrite", source, tmp_path / "there.tif")
    refused("its folder is missing", source, tmp_path / "none" / "out.tif")
    refused(
        "holds at most 16383 pixels a side", write_tiff(tmp_path / "long.tif", picture(2, 5000)), tmp_path / "o.webp"
    )
    refused(
        "cannot be written as PNG: name a .tif", write_tiff(tmp_path / "f.tif", picture(9, 9, 5)), tmp_path / "o.png"
    )
    refused("--window|the window 0,0,30,5 does not lie", source, tmp_path / "out.tif", window=(0, 0, 30, 5))
    refused("--bands names band 4", source, tmp_path / "out.tif", bands=(4, 1, 2))
    refused("memory are too little", source, tmp_path / "out.tif", memory=2**29)
    assert not (tmp_path / ".out.tif.orl-ldm").exists()
    with pytest.raises(UserError, match="there is no setting 'seeed'"):
        upscale_file(source, tmp_path / "out.tif", seeed=1)


def test_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(20, 20))

    def denied(self: Path, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    refused("nothing can be written in .*: Permission denied", source, tmp_path / "out.tif")


def test_a_disk_that_fills_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(100, 40))
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target.name.startswith("r0000032"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    refused("is full; run again with more room, finished parts are kept", source, tmp_path / "out.tif", tile=64)
    monkeypatch.undo()
    assert upscale_file(source, tmp_path / "out.tif", method="bicubic", tile=64).pieces_found >= 1


def test_an_input_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(40, 40))
    compute = file.Job._compute

    def change(self: file.Job, *arguments: Any) -> Any:
        result = compute(self, *arguments)
        time.sleep(0.01)
        source.write_bytes(source.read_bytes() + b"\0")
        return result

    monkeypatch.setattr(file.Job, "_compute", change)
    refused("changed while it was being read", source, tmp_path / "out.tif")


def test_memory_that_does_not_suffice_makes_smaller_batches_then_smaller_tiles(
    steered: SteeredSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(60, 120))
    said: list[str] = []
    run = SteeredSR.run

    def small(self: SteeredSR, tiles: torch.Tensor, *arguments: Any) -> Any:
        if len(tiles) * tiles.shape[-1] > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, tiles, *arguments)

    def decided(*arguments: Any) -> Any:
        monkeypatch.setattr(SteeredSR, "run", run)
        scene = decide(*arguments)
        monkeypatch.setattr(SteeredSR, "run", small)
        return scene

    decide = file.decide
    monkeypatch.setattr(file, "decide", decided)
    upscale_file(source, tmp_path / "out.tif", steered=steered, tile=64, batch=2, say=said.append)
    assert said == [
        "out of memory: going on with batches of 1",
        "out of memory: starting again with tiles of 32 pixels",
        "out of memory: going on with batches of 1",
    ]
    with rasterio.open(tmp_path / "out.tif") as result:
        assert result.tags()["ORL_LDM_TILE"] == "32"


def test_files_beside_a_replaced_target_go(tmp_path: Path) -> None:
    source, target = write_tiff(tmp_path / "in.tif", picture(20, 20)), tmp_path / "out.tif"
    for name in ("out.tif", "out.tif.ovr", "out.tif.msk", "out.tif.aux.xml", "out.txt"):
        (tmp_path / name).write_text("old")
    upscale_file(source, target, method="bicubic", overwrite=True)
    assert {path.name for path in tmp_path.glob("*out*")} == {"out.tif", "out.txt"}
    assert read(target).shape == (3, 80, 80)


def test_a_result_that_was_not_written_as_it_should_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write_tiff(tmp_path / "in.tif", picture(20, 20)), tmp_path / "out.tif"
    target.write_text("old")

    def damaged(mosaic: Path, staged: Path, *arguments: Any) -> None:
        finish.write_tiff(mosaic, staged, *arguments)
        with rasterio.open(staged, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as opened:
            opened.write(np.zeros((1, 3, 3), np.uint8), [1], window=((5, 8), (5, 8)))

    monkeypatch.setattr(file, "write_tiff", damaged)
    refused("has other pixels than were written", source, target, overwrite=True)
    assert target.read_text() == "old"


def test_gdal_s_own_complaints_reach_the_user(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(20, 20))
    refused(
        "GDAL does not know all of .*COMPRESS=CHEESE",
        source,
        tmp_path / "o.tif",
        creation={"COMPRESS": "CHEESE"},
    )
    upscale_file(source, tmp_path / "j.tif", method="bicubic", cog=False, creation={"COMPRESS": "JPEG"})
    with rasterio.open(tmp_path / "j.tif") as result:
        assert result.profile["compress"] == "jpeg" and result.profile["tiled"]


def test_tiles_that_hold_nothing_are_not_computed(
    steered: SteeredSR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(120, 300)
    pixels[:, :, 30:] = 0
    source = write_tiff(tmp_path / "in.tif", pixels, nodata=0)
    computed: list[int] = []
    monkeypatch.setattr(Engine, "hr", lambda self, tiles, hr=Engine.hr: computed.append(len(tiles)) or hr(self, tiles))
    report = upscale_file(source, tmp_path / "out.tif", steered=steered, tile=32)
    assert sum(computed) == report.tiles == 10 and report.empty_tiles == 55
    assert {path.name for path in tmp_path.iterdir()} == {"in.tif", "out.tif"}
