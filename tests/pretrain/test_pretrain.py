"""Pretraining: one loss curve however it is run, and an export that the loader and diffusers read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution import LDMSuperResolutionPipeline
from PIL import Image

from orl_ldm.config import build, override, read_toml
from orl_ldm.diffusion.ldm import load_ldm
from orl_ldm.errors import UserError
from orl_ldm.pretrain import record
from orl_ldm.pretrain.config import PretrainConfig
from orl_ldm.pretrain.data import open_sources
from orl_ldm.pretrain.loop import Checkpoint
from orl_ldm.pretrain.record import append, keep_until
from orl_ldm.pretrain.run import pretrain

ROOT = Path(__file__).parents[2]
TINY = """
holdout = 1
previews = 1
validation_steps = 2
[[sources]]
source = "synthetic"
count = 8
[first_stage]
channels = 8
latent_channels = 4
encoder_layers = [0, 1, 1]
decoder_layers = [0, 1, 1]
train = { steps = 6, batch_size = 4, crop = 32, warmup_steps = 2, checkpoint_minutes = 0 }
[denoiser]
channels = [8, 16]
layers_per_block = 1
train = { steps = 6, batch_size = 4, crop = 32, warmup_steps = 2, checkpoint_minutes = 0 }
"""


def config(folder: Path, *settings: str, **values: Any) -> PretrainConfig:
    table = {**tomllib.loads(TINY), "out": str(folder), **values}
    return build(PretrainConfig, override(table, settings), "test")


def tiny_command(folder: Path) -> list[str]:
    """The arguments of a run in `folder/run`."""
    file = folder / "pretrain-tiny.toml"
    file.write_text(TINY)
    return ["pretrain", str(file), "--set", f"out={folder / 'run'}"]


def curve(folder: Path, stage: str) -> list[float]:
    return [float(row.split(",")[1]) for row in (folder / f"{stage}.csv").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("pretrain") / "straight"
    pretrain(config(folder))
    return folder


class KilledError(Exception):
    """Stands for a crash between two steps."""


def crash_in_step_4(run: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose denoiser gets no further."""
    append = record.append

    def crash(path: Path, row: dict[str, float]) -> None:
        append(path, row)
        if path.name == "denoiser.csv" and row["step"] == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("orl_ldm.pretrain.loop.append", crash)
        with pytest.raises(KilledError):
            pretrain(run)


@pytest.mark.slow
def test_an_interrupted_run_follows_the_same_loss_curve(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_in_step_4(config(tmp_path), monkeypatch)
    exported = pretrain(config(tmp_path))

    for name in ("first-stage", "denoiser"):
        assert (tmp_path / f"{name}.csv").read_text() == (straight / f"{name}.csv").read_text()
        assert len(curve(tmp_path, name)) == 6
    ours, other = load_ldm(str(exported)), load_ldm(str(straight / "ldm"))
    for a, b in zip(ours.unet.parameters(), other.unet.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_goes_on_with_the_same_loss_curve(straight: Path, tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "orl_ldm.cli.main", *tiny_command(tmp_path)]
    log = tmp_path / "run" / "first-stage.csv"
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) != 0
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in ("first-stage", "denoiser"):
        assert curve(tmp_path / "run", name) == curve(straight, name)


@pytest.mark.slow
def test_ctrl_c_reaches_the_workers_too_and_the_run_goes_on(straight: Path, tmp_path: Path) -> None:
    """A terminal sends it to the whole process group."""
    command = [sys.executable, "-m", "orl_ldm.cli.main", *tiny_command(tmp_path), "--set", "workers=2"]
    log = tmp_path / "run" / "first-stage.csv"
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode != 0
    done = len(curve(tmp_path / "run", "first-stage"))
    assert json.loads((tmp_path / "run" / "first-stage-checkpoint" / "step.json").read_text())["step"] == done
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in ("first-stage", "denoiser"):
        assert curve(tmp_path / "run", name) == curve(straight, name)


@pytest.mark.parametrize("stop", range(5))
def test_a_kill_while_a_checkpoint_is_replaced_leaves_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Killed at each of the five times that a folder is renamed or, after its first file, removed."""
    model = torch.nn.Linear(1, 1)
    checkpoint = Checkpoint(tmp_path / "checkpoint", SimpleNamespace(scaler=None), model, model, model, model)
    for step in (1, 2):
        torch.nn.init.constant_(model.weight, step)
        checkpoint.save(step, 0.5)
    operations = 0

    def struck(path: Path, *rest: Any, **options: Any) -> Any:
        nonlocal operations
        operations += 1
        if operations > stop:
            if not rest and path.exists():
                next(path.iterdir()).unlink()
            raise KeyboardInterrupt
        return original[len(rest) > 0](path, *rest, **options)

    original = (shutil.rmtree, Path.rename)
    torch.nn.init.constant_(model.weight, 3)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", struck)
        patch.setattr(Path, "rename", struck)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(3, 0.5)
    step, _ = checkpoint.load()
    assert step in (2, 3) and model.weight.item() == step
    checkpoint.save(4, 0.5)
    assert checkpoint.load() == (4, 0.5) and [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("found", "kept"), [("", None), ("step,lo", None), ("step,loss\n1,2\n2,3\n3", "step,loss\n1,2\n")]
)
def test_rows_that_a_kill_left_half_written_are_dropped(tmp_path: Path, found: str, kept: str | None) -> None:
    path = tmp_path / "log.csv"
    path.write_text(found)
    record.keep_until(path, 1)
    assert (path.read_text() if path.exists() else None) == kept
    record.append(path, {"step": 2, "loss": 4})
    assert path.read_text() == (kept or "step,loss\n") + "2,4\n"


def test_parts_of_a_batch_make_the_same_step(straight: Path, tmp_path: Path) -> None:
    parts = {"first_stage.train.gradient_accumulation=2", "denoiser.train.gradient_accumulation=4"}
    pretrain(config(tmp_path, *parts))
    for name in ("first-stage", "denoiser"):
        assert curve(tmp_path, name) == pytest.approx(curve(straight, name), rel=1e-3)


@pytest.mark.slow
def test_workers_that_load_make_the_same_steps(straight: Path, tmp_path: Path) -> None:
    pretrain(config(tmp_path, "workers=2"))
    for name in ("first-stage", "denoiser"):
        assert curve(tmp_path, name) == curve(straight, name)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = config(tmp_path / "broken", "workers=2", "mixed_precision=bf16")
    crash_in_step_4(broken, monkeypatch)
    pretrain(broken)
    exported = pretrain(config(tmp_path / "whole", "workers=2", "mixed_precision=bf16"))
    for name in ("first-stage", "denoiser"):
        assert curve(tmp_path / "broken", name) == pytest.approx(curve(tmp_path / "whole", name), rel=1e-2)
    assert "1 x NVIDIA" in (exported / "README.md").read_text()


@pytest.mark.slow
def test_two_processes_follow_the_loss_curve_of_one(straight: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    launch += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--local-addr=127.0.0.1"]  # any free port
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launch, "-m", "orl_ldm.cli.main", *tiny_command(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    for name in ("first-stage", "denoiser"):
        assert curve(tmp_path / "run", name) == pytest.approx(curve(straight, name), rel=1e-3)
    assert load_ldm(str(tmp_path / "run" / "ldm")).latent_channels == 4


def test_the_export_is_a_diffusers_pipeline_with_a_card(straight: Path) -> None:
    pipeline = LDMSuperResolutionPipeline.from_pretrained(straight / "ldm")
    assert type(pipeline.vqvae).__name__ == "AutoencoderDC"
    card = (straight / "ldm" / "README.md").read_text()
    assert "7 images of synthetic; 1 further ones held out" in card
    assert "| denoiser | 6 | 4 | 32 | 0.0004 |" in card
    assert "| ddim 2 lpips |" in card and "| ceiling psnr |" in card


def test_validation_leaves_a_table_and_pictures(straight: Path) -> None:
    head, row = (straight / "denoiser-validation.csv").read_text().splitlines()
    assert head.startswith("step,hours,loss,held_out_loss,bicubic_psnr,bicubic_lpips,one_call_psnr")
    assert row.startswith("6,")
    with Image.open(straight / "previews" / "denoiser-0000006.png") as picture:
        assert picture.width > 3 * picture.height  # bicubic, one call, DDIM, reference beside each other
    assert (straight / "previews" / "first-stage-0000006.png").exists()


def test_a_second_training_goes_on_from_the_first(straight: Path, tmp_path: Path) -> None:
    started = config(tmp_path, "first_stage.train.steps=0", start=str(straight / "ldm"), seed=1)
    before, after = load_ldm(str(straight / "ldm")), load_ldm(str(pretrain(started)))
    for a, b in zip(before.first_stage.parameters(), after.first_stage.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(before.unet.parameters(), after.unet.parameters(), strict=True))
    assert not (tmp_path / "first-stage.csv").exists()
    assert "going on from" in (tmp_path / "ldm" / "README.md").read_text()


def test_a_new_denoiser_learns_on_the_first_stage_of_another(straight: Path, tmp_path: Path) -> None:
    anew = ("first_stage.train.steps=0", "denoiser.anew=true", "denoiser.channels=[8, 24]")
    before = load_ldm(str(straight / "ldm"))
    after = load_ldm(str(pretrain(config(tmp_path, *anew, start=str(straight / "ldm")))))
    for a, b in zip(before.first_stage.parameters(), after.first_stage.parameters(), strict=True):
        assert torch.equal(a, b)
    assert tuple(after.unet.config.block_out_channels) == (8, 24)
    assert "with the first stage of" in (tmp_path / "ldm" / "README.md").read_text()


def test_images_of_several_sizes_are_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "sensor" / "train" / "field"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.effect_noise((80, 100 + i), 40).convert("RGB").save(folder / f"{i}.png")
    sources = [{"source": str(tmp_path / "sensor"), "weight": 2.0}, {"source": "synthetic", "count": 4}]
    few = ("first_stage.train.steps=1", "denoiser.train.steps=1")
    exported = pretrain(config(tmp_path / "run", *few, sources=sources, holdout=3))
    card = (exported / "README.md").read_text()
    assert "images of synthetic" in card and f"images of {tmp_path / 'sensor'}" in card


def test_another_training_does_not_go_on_in_the_same_folder(straight: Path) -> None:
    with pytest.raises(UserError, match=r"other settings \(denoiser.train.learning_rate\): choose another `out`"):
        pretrain(config(straight, "denoiser.train.learning_rate=1e-3"))
    pretrain(config(straight, "denoiser.train.validate_minutes=1.0", "workers=1"))


def test_an_image_that_is_too_small_is_named_by_a_worker_as_well(tmp_path: Path, straight: Path) -> None:
    settings = ("first_stage.train.steps=0", "denoiser.train.crop=512", "workers=2")
    with pytest.raises(UserError, match=r"^image 'train/[^']*' is 256x256: smaller than the crop 512$"):
        pretrain(config(tmp_path, *settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("denoiser.train.gradient_accumulation=3", "batch_size 4 does not split over 1 processes x 3"),
        ("denoiser.train.crop=512", "smaller than the crop 512"),
        ("denoiser.train.crop=36", r"denoiser\.train\.crop is 36; it has to be a multiple of 8"),
        ("holdout=8", "all 8 images are held out"),
        ("denoiser.channels=[60]", "norm_num_groups, 8, have to divide channels, 60 among them"),
        ("denoiser.channels=[]", "at least 1 item"),
        ("first_stage.channels=6", "a multiple of 4"),
        ("first_stage.latent_channels=3", "latent_channels, 3, have to divide 2 x channels, 8"),
        ("first_stage.encoder_layers=[1, 0, 1]", "greater than 0"),
        ("scale=2", "it is a x4 model|data.scale is 2"),
    ],
)
def test_settings_that_do_not_fit_are_said(tmp_path: Path, straight: Path, setting: str, message: str) -> None:
    extra = {"start": str(straight / "ldm")} if setting.startswith("scale") else {}
    with pytest.raises(UserError, match=message):
        pretrain(config(tmp_path, "first_stage.train.steps=0", setting, **extra))


def test_a_start_with_other_weights_is_another_training(tmp_path: Path, straight: Path) -> None:
    shutil.copytree(straight / "ldm", tmp_path / "start")
    settings = ("first_stage.train.steps=0", "denoiser.train.steps=1")
    pretrain(config(tmp_path / "run", *settings, start=str(tmp_path / "start")))
    weights = next((tmp_path / "start").glob("*/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"other settings \(start_weights\)"):
        pretrain(config(tmp_path / "run", *settings, start=str(tmp_path / "start")))


def test_an_image_of_two_sources_is_on_one_side(straight: Path, tmp_path: Path) -> None:
    one = config(tmp_path)
    both = open_sources(replace(one, sources=(*one.sources, replace(one.sources[0], weight=3.0)), holdout=3))
    assert not {ref.name for ref in both.held_out} & {ref.name for ref in both.refs}


def test_steps_beyond_a_million_are_written_as_they_are(tmp_path: Path) -> None:
    append(tmp_path / "log.csv", {"step": 1_234_567, "loss": 0.1})
    keep_until(tmp_path / "log.csv", 1_234_567)
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,loss", "1234567,0.1"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orl_ldm.pretrain.data.normal", lambda shape, *args: np.full(shape, np.nan, dtype=np.float32))
    with pytest.raises(UserError, match="not finite at step 0"):
        pretrain(config(tmp_path))


def test_the_large_sibling_trains_a_few_steps(tmp_path: Path) -> None:
    few = ["steps=2", "batch_size=2", "crop=32", "warmup_steps=1"]
    settings = [f"{stage}.train.{setting}" for stage in ("first_stage", "denoiser") for setting in few]
    settings += ["holdout=1", "previews=1", "validation_steps=1", "workers=0", f'out="{tmp_path}"']
    settings += ["first_stage.channels=8", "denoiser.channels=[32, 32, 64, 64]", 'mixed_precision="no"']
    read = read_toml(ROOT / "pipelines" / "pretrain-large.toml")
    large = build(
        PretrainConfig, override({**read, "sources": [{"source": "synthetic", "count": 4}]}, settings), "test"
    )
    ldm = load_ldm(str(pretrain(large)))
    assert ldm.size_multiple == 8
    whole = build(PretrainConfig, read, "test")
    assert whole.denoiser.channels == (160, 320, 320, 640) and whole.sources[0].source == "timm/resisc45"
