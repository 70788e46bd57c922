"""Loading an LDM: what is read, and what is refused with a sentence."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DDIMScheduler, UNet2DModel, VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from orl_ldm.diffusion.config import LDMConfig
from orl_ldm.diffusion.ldm import LDM, load_ldm, open_ldm
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.diffusion.schedule import schedule_of, to_x0_and_eps
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


def test_the_digest_names_the_weights(tmp_path: Path, ldm_folder: Path) -> None:
    shutil.copytree(ldm_folder, tmp_path / "copy")
    assert load_ldm(str(tmp_path / "copy")).digest == load_ldm(str(ldm_folder)).digest
    weights = next((tmp_path / "copy" / "unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_ldm(str(tmp_path / "copy")).digest != load_ldm(str(ldm_folder)).digest


def copy(ldm_folder: Path, place: Path, part: str = "unet", **settings: object) -> str:
    """A copy of an LDM with other settings of one part; its id."""
    shutil.copytree(ldm_folder, place)
    if settings:
        path = place / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(place)


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/notes.json",
        "training.json",
        "vqvae/old/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "README.md",
    ],
)
def test_what_is_not_read_does_not_count(tmp_path: Path, ldm_folder: Path, file: str) -> None:
    place = copy(ldm_folder, tmp_path / "copy")
    (tmp_path / "copy" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "copy" / file).write_bytes(b"{}")
    assert load_ldm(place).digest == load_ldm(str(ldm_folder)).digest


@pytest.mark.parametrize("file", ["unet/config.json", "vqvae/config.json", "scheduler/scheduler_config.json"])
def test_what_is_read_counts(tmp_path: Path, ldm_folder: Path, file: str) -> None:
    place = copy(ldm_folder, tmp_path / "copy")
    path = tmp_path / "copy" / file
    path.write_text(path.read_text() + "\n")
    assert load_ldm(place).digest != load_ldm(str(ldm_folder)).digest


@pytest.mark.parametrize(("variant", "sharded"), [("fp16", False), ("fp16", True), ("bf16", False), (None, True)])
def test_weights_of_a_variant_and_in_shards_are_read(
    tmp_path: Path, ldm_folder: Path, variant: str | None, sharded: bool
) -> None:
    ours, place = load_ldm(str(ldm_folder)), copy(ldm_folder, tmp_path / "copy")
    (tmp_path / "copy/unet/diffusion_pytorch_model.safetensors").unlink()
    size = {"max_shard_size": "20KB"} if sharded else {}
    ours.unet.save_pretrained(tmp_path / "copy/unet", variant=variant, **size)
    assert len(list((tmp_path / "copy/unet").glob("*.safetensors"))) > 1 or not sharded
    theirs = load_ldm(place)
    x, t, lr = torch.rand(1, ours.latent_channels, 8, 8), torch.tensor([500.0]), torch.rand(1, 3, 8, 8)
    assert torch.equal(theirs.denoise(x, t, lr), ours.denoise(x, t, lr))
    weights = next((tmp_path / "copy/unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_ldm(place).digest != theirs.digest
    if sharded:
        weights.unlink()
        with pytest.raises(UserError, match=r"is missing, which .*index.*json lists"):
            load_ldm(place)


def test_of_several_variants_none_is_guessed(tmp_path: Path, ldm_folder: Path) -> None:
    place = copy(ldm_folder, tmp_path / "copy")
    weights = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "ema"):
        shutil.copy(weights, weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    load_ldm(place)
    weights.unlink()
    with pytest.raises(UserError, match=r"several variants \(ema, fp16\): keep one"):
        load_ldm(place)


@pytest.mark.parametrize("special", ["d/[aerial] 2024 #1 50% a:b \u673a\u573a {x}*", "x::y", "~"])
def test_any_path_is_an_ldm_s(tmp_path: Path, ldm_folder: Path, special: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = tmp_path / "home" if special == "~" else tmp_path / special
    copy(ldm_folder, place)
    assert load_ldm(special if special == "~" else str(place)).digest == load_ldm(str(ldm_folder)).digest


@pytest.mark.parametrize(
    ("part", "settings", "sentence"),
    [
        ("unet", {"num_class_embeds": 10}, "num_class_embeds = 10 of unet/ of .* is not supported"),
        ("unet", {"class_embed_type": "timestep"}, "class_embed_type = 'timestep' .* must be null"),
        ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier' .* must be 'positional'"),
        ("unet", {"time_embedding_type": "learned", "num_train_timesteps": 1000}, "time_embedding_type = 'learned'"),
        ("unet", {"out_channels": 3}, "cannot be loaded"),
        ("vqvae", {"scaling_factor": None}, "scaling_factor = None of the first stage .* must be a positive number"),
        ("vqvae", {"scaling_factor": 0}, "scaling_factor = 0 "),
        ("vqvae", {"scaling_factor": "1"}, "scaling_factor = '1' "),
        ("scheduler", {"prediction_type": "flow_prediction"}, "prediction_type = 'flow_prediction' of the scheduler"),
        ("scheduler", {"prediction_type": None}, "prediction_type = None"),
        ("scheduler", {"thresholding": True}, "thresholding = True of the scheduler"),
        ("scheduler", {"timestep_spacing": "karras"}, "timestep_spacing = 'karras'"),
        ("scheduler", {"beta_schedule": "laplace"}, "has no noise schedule: laplace"),
        ("scheduler", {"beta_start": None}, "has no noise schedule"),
        ("scheduler", {"trained_betas": [0.0, 0.1]}, "its betas must be above 0"),
        ("scheduler", {"trained_betas": [0.5, float("nan")]}, "its betas must be above 0"),
        ("scheduler", {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}, "rescale_betas_zero_snr = True"),
        ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is a FlowMatchEulerDiscreteScheduler"),
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "is a EDMEulerScheduler, which is not supported"),
        ("scheduler", {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type"),
        ("scheduler", {"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "variance_type"),
        ("scheduler", {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas = True"),
    ],
)
def test_settings_of_a_model_that_are_not_supported_are_refused(
    tmp_path: Path, ldm_folder: Path, part: str, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        load_ldm(copy(ldm_folder, tmp_path / "copy", part, **settings))


@pytest.mark.parametrize(
    "settings", [{"shift_factor": 0.1}, {"latents_mean": [0.1] * 4}, {"latents_std": [2.0] * 4}, {"in_channels": 4}]
)
def test_settings_of_a_kl_first_stage_that_are_not_supported_are_refused(
    tmp_path: Path, ldm_folder: Path, settings: dict[str, object]
) -> None:
    place = copy(ldm_folder, tmp_path / "copy", "vqvae", **settings)
    index = tmp_path / "copy" / "model_index.json"
    index.write_text(index.read_text().replace("AutoencoderDC", "AutoencoderKL"))
    with pytest.raises(UserError, match=f"{next(iter(settings))} = .* of vqvae/ of .* is not supported"):
        load_ldm(place)


PLAIN = {
    "in_channels": 6, "out_channels": 3, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",),
}  # fmt: skip


def test_networks_that_cannot_be_called_are_refused_at_loading(
    ldm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, *inputs: object) -> None:
        raise IndexError("class_labels should be given")

    monkeypatch.setattr(UNet2DModel, "forward", fail)
    with pytest.raises(UserError, match="load, but fail when they are called: class_labels should be given"):
        load_ldm(str(ldm_folder))


def test_a_decoder_that_does_not_fit_its_encoder_is_refused(tmp_path: Path, ldm_folder: Path) -> None:
    place = copy(ldm_folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "vqvae")
    half = {"block_types": "ResBlock", "block_out_channels": (4, 8, 16), "layers_per_block": (0, 1, 1)}
    half |= {"qkv_multiscales": ((), (), ())}
    less = {name: value[:2] if isinstance(value, tuple) else value for name, value in half.items()}
    stage = AutoencoderDC(
        latent_channels=4,
        **{f"encoder_{name}": value for name, value in half.items()},
        **{f"decoder_{name}": value for name, value in less.items()},
        downsample_block_type="pixel_unshuffle",
    )
    stage.save_pretrained(tmp_path / "copy" / "vqvae")
    with pytest.raises(UserError, match=r"do not fit|fail when they are called"):
        load_ldm(place)


@pytest.mark.parametrize(
    ("given", "clip"),
    [
        ({"_class_name": "PNDMScheduler"}, None),
        ({"_class_name": "EulerDiscreteScheduler"}, None),
        ({"_class_name": "DPMSolverMultistepScheduler"}, None),
        ({"_class_name": "DDPMScheduler"}, 1.0),
        ({"_class_name": "DDIMScheduler", "clip_sample_range": 3.0}, 3.0),
        ({}, 1.0),
    ],
)
def test_a_scheduler_s_own_defaults_hold(given: dict[str, object], clip: float | None) -> None:
    """DDIM stands in for other schedulers, but does not clip where they do not."""
    schedule = schedule_of(given)
    assert schedule.clip_sample_range == clip
    first = float(schedule.alphas_cumprod[0])
    assert schedule.final_alpha_cumprod == (first if given.get("_class_name") == "PNDMScheduler" else 1.0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_model_s_own_timestep_spacing_is_used(spacing: str) -> None:
    config = {"timestep_spacing": spacing, "steps_offset": 1}
    scheduler = DDIMScheduler(**config)
    for steps in (1, 7, 50):
        scheduler.set_timesteps(steps)
        grid = schedule_of(config).grid(steps)
        assert grid == scheduler.timesteps.tolist()


def test_trained_betas_are_used() -> None:
    betas = [0.1, 0.2, 0.3]
    expected = torch.cumprod(1 - torch.tensor(betas), 0).double()
    torch.testing.assert_close(schedule_of({"trained_betas": betas}).alphas_cumprod, expected)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_without_signal_at_the_last_timestep_everything_stays_finite(
    tmp_path: Path, ldm_folder: Path, kind: str
) -> None:
    place = copy(ldm_folder, tmp_path / "copy", "scheduler", rescale_betas_zero_snr=True, prediction_type=kind)
    schedule = load_ldm(place).schedule
    t = torch.tensor([999.0, 998.5, 0.0, -1.0])
    assert schedule.alpha_bar(t)[0] == 0
    assert schedule.log_snr(t).isfinite().all() and (schedule.log_snr(t).diff() >= 0).all()
    x = torch.randn(4, 3, 2, 2)
    assert all(y.isfinite().all() for y in to_x0_and_eps(x[:3], x[:3], schedule.alpha_bar(t[:3]), schedule))


@pytest.mark.parametrize("kind", [VQModel, AutoencoderKL])
def test_autocast_and_default_dtype_of_the_caller_do_not_matter(tmp_path: Path, ldm_folder: Path, kind: type) -> None:
    place = copy(ldm_folder, tmp_path / "copy")
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
    ldm = load_ldm(copy(ldm_folder, tmp_path / "copy", "vqvae", force_upcast=upcast), dtype=torch.float16)
    assert (ldm.dtype, ldm.first_stage.dtype) == (torch.float16, stage)
    assert all(y.dtype == torch.float32 for y in outputs(ldm))


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
