"""`orl-ldm upscale` and `rio upscale`: what is typed, what is printed, how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import click.testing
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from typer.testing import CliRunner
from upscale_samples import picture, read, write_tiff

from orl_ldm import SteeredSR, SteeredSRPipeline, upscale_file
from orl_ldm.cli.main import app
from orl_ldm.cli.rio import upscale as rio_upscale
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.errors import UserError
from orl_ldm.policy import open_policy
from orl_ldm.upscale import engine, plan


def run(*arguments: object) -> tuple[int, str]:
    """(exit code, all output); a UserError is what main prints."""
    result = CliRunner().invoke(app, ["upscale", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_one_file(tmp_path: Path, policy_folder: Path, ldm_folder: Path) -> None:
    source = write_tiff(tmp_path / "[red]in.tif", picture(24, 20))
    target = tmp_path / "out.tif"
    code, said = run(source, "-o", target, "--policy", policy_folder, "--ldm", ldm_folder, "--seed", 3, "--tile", 32)
    assert code == 0, said
    for part in ("80x96 pixels", "1 tiles", "calls per tile", "s per output megapixel", "bias", "[red]in.tif"):
        assert part in said
    with rasterio.open(target) as result:
        assert result.tags()["ORL_LDM_SEED"] == "3" and len(result.tags()["ORL_LDM_POLICY"]) == 64
    assert run(source, "-o", target, "--method", "bicubic")[0] == 2


@pytest.mark.slow
def test_the_shipped_policy_belongs_to_the_shipped_ldm_and_upscales_right_away(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(24, 20))
    code, said = run(source, "-o", tmp_path / "out.tif")
    assert code == 0, said
    assert read(tmp_path / "out.tif").shape == (3, 96, 80)
    assert open_policy("embedded").facts["ldm_digest"] == model_files("embedded").digest


def test_folders_go_on_past_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.tif", "c.tif"):
        write_tiff(tmp_path / "in" / name, picture(20, 20))
    (tmp_path / "in" / "b.tif").write_text("broken")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    code, said = run(tmp_path / "in", "-o", tmp_path / "out", "--method", "bicubic")
    assert code == 1 and "1 of 3 files failed" in said and "b.tif: b.tif is no PNG" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.tif", "c.tif"}
    code, said = run(
        tmp_path / "in" / "a.tif", tmp_path / "in" / "c.tif", "-o", tmp_path / "out", "--method", "bicubic"
    )
    assert code == 0 and said.count("exists already: skipped") == 2


def test_json_quiet_dry_run_and_check(tmp_path: Path) -> None:
    source, target = write_tiff(tmp_path / "in.tif", picture(60, 60)), tmp_path / "out.tif"
    common = (source, "-o", target, "--method", "bicubic", "--tile", 32)
    code, said = run(*common, "--dry-run")
    assert code == 0 and "9 tiles" in said and "of disk" in said and "of memory" in said
    assert list(tmp_path.iterdir()) == [source]
    code, said = run(*common, "--json")
    report = json.loads(said)
    assert (report["width"], report["tiles"], report["quality"]["seam"] > 0) == (240, 9, True)
    code, said = run(*common, "--overwrite", "--quiet")
    assert (code, said.strip()) == (0, "")
    code, said = run(*common, "--check")
    assert code == 0 and f"RMSE {report['quality']['rmse']:.2g}" in said and "seam score" in said
    code, said = run(source, "-o", source, "--check")
    assert code == 2 and "is no upscale of" in said


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--memory", "lots", "write for example 800M or 2G"),
        ("--window", "1,2,3", "column,row,width,height"),
        ("--range", "5,5", "must be below"),
        ("--bands", "1,2", "three bands"),
        ("--tile", "100", "multiple of 32"),
        ("--co", "COMPRESS", "not NAME=VALUE"),
        ("--method", "magic", "steered or bicubic"),
        ("--batch", "0", "at least 1"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, option: str, value: str, complaint: str) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(20, 20))
    code, said = run(source, "-o", tmp_path / "out.tif", option, value)
    assert code == 2 and complaint in said
    assert not (tmp_path / "out.tif").exists()


def test_bounds_are_the_window_in_the_file_s_crs(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(60, 80))  # 0.5 m pixels from (400000, 5000000)
    run(source, "-o", tmp_path / "b.tif", "--method", "bicubic", "--bounds", "400005,4999980,400020,4999990")
    run(source, "-o", tmp_path / "w.tif", "--method", "bicubic", "--window", "10,20,30,20")
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), read(tmp_path / "w.tif"))
    with rasterio.open(tmp_path / "b.tif") as result:
        assert tuple(result.bounds) == (400005, 4999980, 400020, 4999990)


def test_rio_has_the_command(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(20, 20))
    line = [str(source), "-o", str(tmp_path / "out.tif"), "--method", "bicubic"]
    result = click.testing.CliRunner().invoke(rio_upscale, line)
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "out.tif").shape == (3, 80, 80)


def test_quadrants_and_the_whole_are_one_picture(steered: SteeredSR, tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(60, 70))
    upscale_file(source, tmp_path / "whole.tif", steered=steered, tile=32)
    whole = read(tmp_path / "whole.tif").astype(int)
    for column, row, width, height in ((0, 0, 35, 30), (35, 0, 35, 30), (0, 30, 35, 30), (35, 30, 35, 30)):
        target = tmp_path / f"{column}-{row}.tif"
        upscale_file(source, target, steered=steered, tile=32, window=(column, row, width, height))
        part = whole[:, 4 * row : 4 * (row + height), 4 * column : 4 * (column + width)]
        assert np.abs(read(target) - part).max() <= 1  # rounding: batches differ


def test_faithful_agrees_with_the_input(steered: SteeredSR, tmp_path: Path) -> None:
    smooth = picture(64, 64) // 4 + 96  # away from black and white, which the untrained network would clip
    source = write_tiff(tmp_path / "in.tif", smooth)
    free = upscale_file(source, tmp_path / "a.tif", steered=steered)
    faithful = upscale_file(source, tmp_path / "b.tif", steered=steered, faithful=True)
    assert faithful.quality.rmse is not None and free.quality.rmse is not None
    assert faithful.quality.rmse < min(free.quality.rmse, 1.5) and abs(faithful.quality.bias or 0) < 0.1


def test_uncertainty_is_the_spread_over_seeds(steered: SteeredSR, tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(40, 30))
    upscale_file(source, tmp_path / "alone.tif", steered=steered)
    upscale_file(source, tmp_path / "out.tif", steered=steered, uncertainty=tmp_path / "u.tif", samples=3)
    np.testing.assert_array_equal(read(tmp_path / "alone.tif"), read(tmp_path / "out.tif"))
    with rasterio.open(tmp_path / "u.tif") as spread:
        assert spread.dtypes == ("float32",) and spread.shape == (160, 120)
        assert (spread.read() >= 0).all() and spread.read().max() > 0.1
        assert "3 seeds" in spread.descriptions[0]


def test_the_pipeline_has_diffusers_interface(policy_folder: Path, ldm_folder: Path) -> None:
    pipe = SteeredSRPipeline.from_pretrained(str(ldm_folder), str(policy_folder)).to("cpu")
    image = Image.fromarray(picture(20, 30).transpose(1, 2, 0))
    made = pipe(image, generator=torch.Generator().manual_seed(1)).images[0]
    assert isinstance(made, Image.Image) and made.size == (120, 80)
    assert pipe([image, image], output_type="np").images.shape == (2, 80, 120, 3)
    assert pipe(torch.rand(2, 3, 16, 16), output_type="pt").images.shape == (2, 3, 64, 64)
    with pytest.warns(UserWarning, match="num_inference_steps is not used"):
        pipe(image, num_inference_steps=50)
    with pytest.raises(UserError, match="must have one size"):
        pipe([image, image.resize((8, 8))])


def test_learning_needs_nothing_of_it() -> None:
    code = "import sys, orl_ldm.learn.train, orl_ldm.cli.main; sys.exit('rasterio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_scene_wider_than_memory_is_computed_in_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(50, 600))
    options = {"method": "bicubic", "tile": 32, "faithful": True}
    upscale_file(source, tmp_path / "one.tif", **options)
    monkeypatch.setattr(plan, "fixed_memory", lambda tiles, options: 0)
    work: list[str] = []
    begin = engine.Engine.pieces
    monkeypatch.setattr(engine.Engine, "pieces", lambda self, *a: work.append(str(a[0])) or begin(self, *a))
    upscale_file(source, tmp_path / "several.tif", memory=4 * 2**20, **options)
    assert work == ["(0, 256)", "(256, 512)", "(512, 600)"]
    np.testing.assert_array_equal(read(tmp_path / "one.tif"), read(tmp_path / "several.tif"))
