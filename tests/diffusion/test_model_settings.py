"""The settings that a model comes with are honoured, or refused at loading by name."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, DDIMScheduler, UNet2DModel
from tiny_ldm import ldm_copy

from orl_ldm.diffusion.ldm import load_ldm
from orl_ldm.diffusion.schedule import schedule_of, to_x0_and_eps
from orl_ldm.errors import UserError


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
        load_ldm(ldm_copy(ldm_folder, tmp_path / "copy", part, **settings))


@pytest.mark.parametrize(
    "settings", [{"shift_factor": 0.1}, {"latents_mean": [0.1] * 4}, {"latents_std": [2.0] * 4}, {"in_channels": 4}]
)
def test_settings_of_a_kl_first_stage_that_are_not_supported_are_refused(
    tmp_path: Path, ldm_folder: Path, settings: dict[str, object]
) -> None:
    place = ldm_copy(ldm_folder, tmp_path / "copy", "vqvae", **settings)
    index = tmp_path / "copy" / "model_index.json"
    index.write_text(index.read_text().replace("AutoencoderDC", "AutoencoderKL"))
    with pytest.raises(UserError, match=f"{next(iter(settings))} = .* of vqvae/ of .* is not supported"):
        load_ldm(place)


def test_networks_that_cannot_be_called_are_refused_at_loading(
    ldm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, *inputs: object) -> None:
        raise IndexError("class_labels should be given")

    monkeypatch.setattr(UNet2DModel, "forward", fail)
    with pytest.raises(UserError, match="load, but fail when they are called: class_labels should be given"):
        load_ldm(str(ldm_folder))


def test_a_decoder_that_does_not_fit_its_encoder_is_refused(tmp_path: Path, ldm_folder: Path) -> None:
    place = ldm_copy(ldm_folder, tmp_path / "copy")
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
    place = ldm_copy(ldm_folder, tmp_path / "copy", "scheduler", rescale_betas_zero_snr=True, prediction_type=kind)
    schedule = load_ldm(place).schedule
    t = torch.tensor([999.0, 998.5, 0.0, -1.0])
    assert schedule.alpha_bar(t)[0] == 0
    assert schedule.log_snr(t).isfinite().all() and (schedule.log_snr(t).diff() >= 0).all()
    x = torch.randn(4, 3, 2, 2)
    assert all(y.isfinite().all() for y in to_x0_and_eps(x[:3], x[:3], schedule.alpha_bar(t[:3]), schedule))
