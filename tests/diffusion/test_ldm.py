"""What an LDM computes, whatever its first stage and its caller."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel
from tiny_ldm import ldm_copy
from torch import Tensor

from orl_ldm.diffusion.ldm import LDM, load_ldm
from orl_ldm.errors import UserError
from orl_ldm.shipped import shipped


@pytest.mark.parametrize("kind", [VQModel, AutoencoderKL])
def test_other_first_stages_and_channel_counts_load(tmp_path: Path, ldm_folder: Path, kind: type) -> None:
    shutil.copytree(ldm_folder, tmp_path / "ldm")
    shutil.rmtree(tmp_path / "ldm" / "vqvae")
    channels = {"block_out_channels": (8, 8, 16), "norm_num_groups": 4, "latent_channels": 3}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    kind(**channels, **blocks).save_pretrained(tmp_path / "ldm" / "vqvae")
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "norm_num_groups": 4}
    UNet2DModel(in_channels=6, out_channels=3, block_out_channels=(8,), **kinds).save_pretrained(tmp_path / "ldm/unet")
    index = json.loads((tmp_path / "ldm" / "model_index.json").read_text())
    index["vqvae"] = ["diffusers", kind.__name__]
    (tmp_path / "ldm" / "model_index.json").write_text(json.dumps(index))
    ldm = load_ldm(str(tmp_path / "ldm"))
    assert ldm.latent_scale == (1 if kind is VQModel else ldm.first_stage.config.scaling_factor)
    image = torch.rand(2, 3, 32, 32)
    latents = ldm.encode(image)
    assert latents.shape == (2, 3, 8, 8)
    assert ldm.decode(latents).shape == image.shape
    assert ldm.scale == 4
    assert ldm.denoise_with_features(latents, torch.full((2,), 500.0), image[:, :, ::4, ::4])[1].shape == (2, 16)


def test_features_of_the_denoiser_change_nothing_and_tell_images_apart(ldm: LDM) -> None:
    torch.manual_seed(0)
    x, lr, t = torch.randn(3, ldm.latent_channels, 8, 8), torch.rand(3, 3, 8, 8), torch.tensor([700.0, 300.0, 300.0])
    prediction, features = ldm.denoise_with_features(x, t, lr)
    assert torch.equal(prediction, ldm.denoise(x, t, lr))  # and no hook is left behind
    assert features.shape == (3, ldm.feature_width) and features.isfinite().all() and features.std(0).min() > 0
    alone = ldm.denoise_with_features(x[1:2], t[1:2], lr[1:2])[1]
    torch.testing.assert_close(features[1:2], alone, atol=1e-4, rtol=1e-4)


PLAIN = {
    "in_channels": 6, "out_channels": 3, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",),
}  # fmt: skip


@pytest.mark.parametrize("kind", [VQModel, AutoencoderKL])
def test_autocast_and_default_dtype_of_the_caller_do_not_matter(tmp_path: Path, ldm_folder: Path, kind: type) -> None:
    place = ldm_copy(ldm_folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "vqvae")
    shutil.rmtree(tmp_path / "copy" / "unet")
    stage = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    sizes = {"block_out_channels": (8, 8, 16), "norm_num_groups": 4, "latent_channels": 3}
    kind(**sizes, **stage).save_pretrained(tmp_path / "copy/vqvae")
    UNet2DModel(**PLAIN, block_out_channels=(8,)).save_pretrained(tmp_path / "copy/unet")
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    (tmp_path / "copy" / "model_index.json").write_text(json.dumps(index | {"vqvae": ["diffusers", kind.__name__]}))
    for name in (str(ldm_folder), place):
        expected = outputs(load_ldm(name))
        with torch.autocast("cpu", torch.bfloat16):
            found = outputs(load_ldm(name))
        torch.set_default_dtype(torch.float64)
        try:
            doubled = outputs(load_ldm(name))
        finally:
            torch.set_default_dtype(torch.float32)
        for ours, cast, double in zip(expected, found, doubled, strict=True):
            assert ours.dtype == cast.dtype == double.dtype == torch.float32
            assert torch.equal(ours, cast)
            torch.testing.assert_close(ours, double, atol=1e-5, rtol=1e-5)


def outputs(ldm: LDM) -> tuple[Tensor, ...]:
    """Of everything that an LDM does, on float32 inputs."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float32)
    t = torch.tensor([700.0, 300.0], dtype=torch.float64)
    latents = ldm.encode(image)
    return latents, ldm.decode(latents), *ldm.denoise_with_features(latents, t, image[:, :, ::4, ::4])


@pytest.mark.parametrize(("upcast", "stage"), [(True, torch.float32), (False, torch.float16)])
def test_a_first_stage_that_overflows_in_float16_stays_in_float32(
    tmp_path: Path, ldm_folder: Path, upcast: bool, stage: torch.dtype
) -> None:
    ldm = load_ldm(ldm_copy(ldm_folder, tmp_path / "copy", "vqvae", force_upcast=upcast), dtype=torch.float16)
    assert (ldm.dtype, ldm.first_stage.dtype) == (torch.float16, stage)
    assert all(y.dtype == torch.float32 for y in outputs(ldm))


def test_the_embedded_ldm_fits_its_promises() -> None:
    ldm = load_ldm("embedded")
    assert sum(p.numel() for p in ldm.unet.parameters()) < 8.5e6
    assert sum(path.stat().st_size for path in shipped("embedded-ldm").rglob("*") if path.is_file()) < 20e6
    assert (ldm.scale, ldm.schedule.prediction_type) == (4, "v_prediction")


def test_sizes_and_scales_that_do_not_suit_the_model_are_refused(ldm_folder: Path) -> None:
    ldm = load_ldm(str(ldm_folder))
    ldm.require(32, 4)
    with pytest.raises(UserError, match=r"data.size is 33, but .* takes multiples of 8 pixels"):
        ldm.require(33, 4)
    with pytest.raises(UserError, match=r"data.scale is 2, but .* is a x4 model"):
        ldm.require(32, 2)
