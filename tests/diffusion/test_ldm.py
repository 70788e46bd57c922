"""Loading an LDM: what is read, and what is refused with a sentence."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel
from safetensors.torch import load_file, save_file

from orl_ldm.diffusion.config import LDMConfig
from orl_ldm.diffusion.ldm import LDM, load_ldm, open_ldm
from orl_ldm.diffusion.model_files import EMBEDDED, model_files
from orl_ldm.errors import UserError


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


def test_looking_at_the_denoiser_changes_nothing_and_tells_images_apart(ldm: LDM) -> None:
    torch.manual_seed(0)
    x, lr, t = torch.randn(3, ldm.latent_channels, 8, 8), torch.rand(3, 3, 8, 8), torch.tensor([700.0, 300.0, 300.0])
    prediction, inner = ldm.denoise_with_features(x, t, lr)
    assert torch.equal(prediction, ldm.denoise(x, t, lr))  # and no hook is left behind
    assert inner.shape == (3, ldm.feature_width) and inner.isfinite().all() and inner.std(0).min() > 0
    alone = ldm.denoise_with_features(x[1:2], t[1:2], lr[1:2])[1]
    torch.testing.assert_close(inner[1:2], alone, atol=1e-4, rtol=1e-4)


def test_the_digest_names_the_weights(tmp_path: Path, ldm_folder: Path) -> None:
    shutil.copytree(ldm_folder, tmp_path / "copy")
    assert load_ldm(str(tmp_path / "copy")).digest == load_ldm(str(ldm_folder)).digest
    weights = next((tmp_path / "copy" / "unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_ldm(str(tmp_path / "copy")).digest != load_ldm(str(ldm_folder)).digest


def without_its_end(path: Path) -> None:
    """The same weights without those of the last layer, which a loader might fill in at random."""
    save_file({name: value for name, value in load_file(path).items() if not name.startswith("conv_out.")}, path)


class Mischief:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_older_weights_are_read_and_nothing_in_them_is_run(tmp_path: Path, ldm_folder: Path) -> None:
    shutil.copytree(ldm_folder, tmp_path / "ldm")
    ours, both = load_ldm(str(ldm_folder)), model_files(str(tmp_path / "ldm")).digest
    weights = tmp_path / "ldm" / "unet" / "diffusion_pytorch_model.safetensors"
    old = weights.with_suffix(".bin")
    torch.save(load_file(weights), old)
    assert model_files(str(tmp_path / "ldm")).digest == both  # what is not read does not count
    weights.unlink()
    older = load_ldm(str(tmp_path / "ldm"))
    x, t, lr = torch.rand(1, older.latent_channels, 8, 8), torch.tensor([500.0]), torch.rand(1, 3, 8, 8)
    assert torch.equal(older.denoise(x, t, lr), ours.denoise(x, t, lr))
    assert older.digest != ours.digest
    torch.save({"conv_in.bias": Mischief(tmp_path / "was here")}, old)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_ldm(str(tmp_path / "ldm"))
    assert not (tmp_path / "was here").exists()


def test_of_a_hub_model_older_weights_are_fetched_where_there_are_no_others(
    tmp_path: Path, ldm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    shutil.copytree(ldm_folder, hub)
    weights = hub / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    stage = next(path for path in hub.glob("*/*.safetensors"))
    stage.with_suffix(".bin").write_bytes(b"not to be fetched")

    def fetch(ldm_id: str, allow_patterns: list[str]) -> str:
        for path in hub.rglob("*"):
            if path.is_file() and any(fnmatch(path.relative_to(hub).as_posix(), one) for one in allow_patterns):
                (cache / path.relative_to(hub)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / path.relative_to(hub))
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load_ldm("somebody/older")
    assert [path.parent.name for path in cache.rglob("*.bin")] == ["unet"]


def test_what_is_no_ldm_is_refused(tmp_path: Path, ldm_folder: Path) -> None:
    with pytest.raises(UserError, match="no LDM at "):
        load_ldm("./nowhere")
    with pytest.raises(UserError, match="has no model_index"):
        load_ldm(str(tmp_path))
    shutil.copytree(ldm_folder, tmp_path / "bare")
    (tmp_path / "bare" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in unet/"):
        load_ldm(str(tmp_path / "bare"))
    for part, damage, message in (
        ("unet/config.json", lambda path: path.unlink(), "it has no config.json in unet/"),
        ("model_index.json", lambda path: path.write_text("[1]"), "is no JSON object"),
        ("unet/diffusion_pytorch_model.safetensors", lambda path: path.write_bytes(b"1234"), "cannot be loaded"),
        ("unet/diffusion_pytorch_model.safetensors", without_its_end, "lacks 2 of its weights, conv_out"),
    ):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.copytree(ldm_folder, tmp_path / "damaged")
        damage(tmp_path / "damaged" / part)
        with pytest.raises(UserError, match=message):
            load_ldm(str(tmp_path / "damaged"))
    with pytest.raises(UserError, match="not usable here"):
        open_ldm(LDMConfig(id=str(ldm_folder), device="cuda:99"))


@pytest.mark.skipif(not (EMBEDDED / "model_index.json").exists(), reason="the embedded LDM is not in this checkout")
def test_the_embedded_ldm_fits_its_promises() -> None:
    ldm = load_ldm("embedded")
    assert sum(p.numel() for p in ldm.unet.parameters()) < 8.5e6
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) < 20e6
    assert (ldm.scale, ldm.schedule.prediction_type) == (4, "v_prediction")


def test_sizes_and_scales_that_do_not_suit_the_model_are_refused(ldm_folder: Path) -> None:
    ldm = load_ldm(str(ldm_folder))
    ldm.require(32, 4)
    with pytest.raises(UserError, match=r"data.size is 33, but .* takes multiples of 8 pixels"):
        ldm.require(33, 4)
    with pytest.raises(UserError, match=r"data.scale is 2, but .* is a x4 model"):
        ldm.require(32, 2)
