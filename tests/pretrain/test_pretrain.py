"""Pretraining resumes exactly and exports what the loader and diffusers read."""

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution import LDMSuperResolutionPipeline

from orl_ldm.config import build
from orl_ldm.diffusion.ldm import load_ldm
from orl_ldm.pretrain import loop
from orl_ldm.pretrain.config import PretrainConfig
from orl_ldm.pretrain.run import pretrain

STAGE = {"steps": 6, "batch_size": 2, "crop": 32, "warmup_steps": 2, "validate_every": 6, "checkpoint_minutes": 0.0}


def config(folder: Path) -> PretrainConfig:
    table = {
        "out": str(folder),
        "holdout": 1,
        "sources": [{"source": "synthetic", "count": 8}],
        "first_stage": {
            "channels": 8, "latent_channels": 4, "encoder_layers": [0, 1, 1], "decoder_layers": [0, 1, 1],
            "train": STAGE,
        },
        "denoiser": {"channels": [8, 16], "layers_per_block": 1, "train": {**STAGE, "gradient_accumulation": 2}},
    }  # fmt: skip
    return build(PretrainConfig, table, "test")


class KilledError(Exception):
    """Stands for a crash between two steps."""


def test_an_interrupted_run_follows_the_same_loss_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(config(tmp_path / "straight"))

    append = loop._append

    def crash(path: Path, row: dict[str, float]) -> None:
        append(path, row)
        if path.name == "denoiser.csv" and row["step"] == 4:
            raise KilledError

    monkeypatch.setattr(loop, "_append", crash)
    with pytest.raises(KilledError):
        pretrain(config(tmp_path / "broken"))
    monkeypatch.setattr(loop, "_append", append)
    exported = pretrain(config(tmp_path / "broken"))

    for name in ("first-stage", "denoiser"):
        straight = (tmp_path / "straight" / f"{name}.csv").read_text()
        assert (tmp_path / "broken" / f"{name}.csv").read_text() == straight
    ours, other = load_ldm(str(exported)), load_ldm(str(tmp_path / "straight" / "ldm"))
    for a, b in zip(ours.unet.parameters(), other.unet.parameters(), strict=True):
        assert torch.equal(a, b)
    pipeline = LDMSuperResolutionPipeline.from_pretrained(exported)
    assert type(pipeline.vqvae).__name__ == "AutoencoderDC"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orl_ldm.pretrain.stages.noise_like", lambda x, *args: x * float("nan"))
    with pytest.raises(FloatingPointError, match="not finite at step 0"):
        pretrain(config(tmp_path))
