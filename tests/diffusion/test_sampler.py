"""The steered sampler is DDIM where nothing is steered, and each image goes its own way where something is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution import LDMSuperResolutionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ldm import tiny_ldm_folder

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM, load_ldm
from orl_ldm.diffusion.sampler import Controller, Decision, State, ddim_controller, ddim_step, sample
from orl_ldm.env.spaces import decide
from orl_ldm.images.pairs import Batch
from orl_ldm.images.resample import downscale
from orl_ldm.streams import block_noise

STEPS = 7
PLAIN = SamplerConfig(nfe_max=STEPS, t_floor=0.0)


def noise(ldm: LDM, image_id: int, step: int, shape: tuple[int, ...], seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(block_noise((ldm.latent_channels, *shape), (0, 0), seed, "noise", image_id, 0, step))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_neutral_action_on_the_uniform_grid_is_ddim(
    tmp_path: Path, batch: Batch, prediction_type: str, eta: float, set_alpha_to_one: bool
) -> None:
    ldm = load_ldm(str(tiny_ldm_folder(tmp_path, prediction_type, set_alpha_to_one)))
    ids = [ref.image_id for ref in batch.refs]
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    scheduler.set_timesteps(STEPS)
    grid = ldm.schedule.grid(STEPS)
    assert grid == scheduler.timesteps.tolist()

    size = tuple(batch.lr.shape[-2:])
    x = torch.stack([noise(ldm, i, 0, size) for i in ids])
    expected = []
    for k, t in enumerate(scheduler.timesteps):
        expected.append(x)
        prediction = ldm.denoise(x, t.expand(len(x)), batch.lr)
        fresh = torch.stack([noise(ldm, i, k + 1, size) for i in ids])
        x = scheduler.step(prediction, t, x, eta=eta, variance_noise=fresh if eta else None).prev_sample

    seen: list[torch.Tensor] = []
    drive = ddim_controller(grid, eta)

    def watch(state: State) -> Decision:
        if len(seen) or state.nfe[0] > 0:
            seen.append(state.x)
        return drive(state)

    result = sample(ldm, batch.lr, ids, [0] * len(ids), watch, PLAIN, 3, from_noise=True)
    assert len(seen) == STEPS
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    decoded = ldm.decode(x).clamp(0, 1)
    assert (result.images - decoded).abs().max() < 0.51 / 255 + 1e-3
    assert result.nfe.tolist() == [STEPS] * len(ids)


def test_the_stock_pipeline_gives_the_same_image(
    ldm: LDM, ldm_folder: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution.randn_tensor"
    first = batch.refs[0].image_id
    drawn = noise(ldm, first, 0, tuple(batch.lr.shape[-2:]))[None]
    monkeypatch.setattr(module, lambda *args, **kwargs: drawn)
    pipeline = LDMSuperResolutionPipeline.from_pretrained(ldm_folder)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch.lr[:1] * 2 - 1, num_inference_steps=STEPS, eta=0.0, output_type="np").images[0]
    grid = ldm.schedule.grid(STEPS)
    ours = sample(ldm, batch.lr[:1], [first], [0], ddim_controller(grid, 0.0), PLAIN, 3, from_noise=True)
    difference = np.abs(ours.images[0].permute(1, 2, 0).numpy() - theirs)
    assert difference.max() < 0.51 / 255 + 1e-3


def steered(state: State) -> Decision:
    """A different schedule for every image: deterministic in what is observed, so batches can be compared."""
    step = 0.3 + 0.5 * torch.sigmoid(state.lr.mean((1, 2, 3)) * 4 - 2)
    others = [torch.full_like(step, value) for value in (0.5, 1.2, 0.8, 0.7)]
    return decide(state, torch.stack([step, *others], dim=-1))


def test_an_image_does_not_depend_on_its_batch(ldm: LDM, batch: Batch) -> None:
    ids = [ref.image_id for ref in batch.refs]
    together = sample(ldm, batch.lr, ids, [0, 1, 2], steered, SamplerConfig(), 5)
    for i in reversed(range(len(ids))):
        alone = sample(ldm, batch.lr[i : i + 1], ids[i : i + 1], [i], steered, SamplerConfig(), 5)
        assert (alone.images[0] - together.images[i]).abs().max() <= 1.01 / 255
        assert alone.nfe[0] == together.nfe[i]


def test_rollouts_of_one_image_differ(ldm: LDM, batch: Batch) -> None:
    lr = batch.lr[:1].repeat(2, 1, 1, 1)
    ids = [batch.refs[0].image_id] * 2
    result = sample(ldm, lr, ids, [0, 1], steered, SamplerConfig(), 5)
    assert (result.images[0] - result.images[1]).abs().max() > 0


def test_finished_images_leave_the_batch(ldm: LDM, batch: Batch) -> None:
    sizes: list[int] = []

    def drive(state: State) -> Decision:
        sizes.append(len(state))
        stop = torch.where(state.slot <= state.decisions, -1.0, 0.9)  # image i stops at its decision i
        return Decision(state.t * stop, {})

    result = sample(ldm, batch.lr, [1, 2, 3], [0, 0, 0], drive, SamplerConfig(), 0)
    assert sizes == [3, 2, 1]
    assert result.nfe.tolist() == [0, 1, 2]


def test_the_budget_ends_an_episode(ldm: LDM, batch: Batch) -> None:
    def drive(state: State) -> Decision:
        return Decision(0.99 * state.t, {})

    result = sample(ldm, batch.lr, [1, 2, 3], [0, 0, 0], drive, SamplerConfig(nfe_max=4), 0)
    assert result.nfe.tolist() == [4, 4, 4]


def test_full_fidelity_agrees_with_the_lr_image(ldm: LDM, batch: Batch) -> None:
    def drive(fidelity: float) -> Controller:
        def act(state: State) -> Decision:
            ones = torch.ones(len(state))
            stop = torch.where(state.nfe > 0, -1.0, 0.5)
            return Decision(state.t * stop, {"fidelity": fidelity * ones})

        return act

    errors = []
    for fidelity in (0.0, 1.0):
        result = sample(ldm, batch.lr, [1, 2, 3], [0, 0, 0], drive(fidelity), SamplerConfig(), 0)
        errors.append(float((downscale(result.images, 4) - batch.lr).abs().mean()))
    assert errors[1] < errors[0] / 3  # clamping an untrained output to [0, 1] leaves the rest


def test_grain_is_fresh_texture_where_the_denoiser_added_some(ldm: LDM, batch: Batch) -> None:
    def drive(grain: float) -> Controller:
        def act(state: State) -> Decision:
            ones = torch.ones(len(state))
            stop = torch.where(state.nfe > 0, -1.0, 0.5)
            return Decision(state.t * stop, {"grain": grain * ones})

        return act

    def images(grain: float, rollouts: tuple[int, ...] = (0, 0, 0)) -> torch.Tensor:
        return sample(ldm, batch.lr, [1, 2, 3], rollouts, drive(grain), SamplerConfig(), 0).images

    none, some, more = images(0.0), images(0.5), images(1.0)
    assert 0 < (some - none).square().mean() < (more - none).square().mean()
    assert torch.equal(more, images(1.0)) and not torch.equal(more[0], images(1.0, (1, 0, 0))[0])
    torch.testing.assert_close(images(1.0, (0, 7, 7))[0], more[0])  # whatever the others in the batch draw


def test_before_the_first_call_there_is_no_texture_to_follow(ldm: LDM, batch: Batch) -> None:
    def drive(grain: float) -> Controller:
        def act(state: State) -> Decision:
            ones = torch.ones(len(state))
            return Decision(-ones, {"grain": grain * ones})

        return act

    plain, grained = (sample(ldm, batch.lr, [1, 2, 3], [0, 0, 0], drive(g), SamplerConfig(), 0) for g in (0.0, 2.0))
    assert torch.equal(plain.images, grained.images)


@settings(max_examples=25, deadline=None)
@given(
    t=st.lists(st.floats(21.0, 999.0), min_size=1, max_size=4),
    share=st.floats(0.02, 0.999),
    eta=st.floats(0.0, 1.0),
)
def test_a_step_keeps_the_noise_level(ldm: LDM, t: list[float], share: float, eta: float) -> None:
    """Whatever the schedule: if eps and noise are unit, x at t_next has variance 1 - alpha_bar about x0's share."""
    now = torch.tensor(t, dtype=torch.float64)
    then = now * share
    a_next = ldm.schedule.alpha_bar(then)
    zero, ones = torch.zeros(len(t), 1, 1, 1), torch.ones(len(t), 1, 1, 1)
    eta_row = torch.full((len(t),), eta)
    of_x0 = ddim_step(ldm.schedule, ones, zero, now, then, eta_row, zero)
    of_eps = ddim_step(ldm.schedule, zero, ones, now, then, eta_row, zero)
    of_noise = ddim_step(ldm.schedule, zero, zero, now, then, eta_row, ones)
    torch.testing.assert_close(of_x0.flatten().double(), a_next.sqrt(), rtol=1e-5, atol=1e-6)
    level = of_eps.square() + of_noise.square()
    torch.testing.assert_close(level.flatten().double(), 1 - a_next, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_cpu_s_images(ldm_folder: Path, ldm: LDM, batch: Batch) -> None:
    ids = [ref.image_id for ref in batch.refs]
    here = sample(ldm, batch.lr, ids, [0, 0, 0], steered, SamplerConfig(), 5)
    there = sample(load_ldm(str(ldm_folder), "cuda"), batch.lr, ids, [0, 0, 0], steered, SamplerConfig(), 5)
    assert (here.images - there.images.cpu()).abs().mean() < 1 / 255


def test_a_crop_of_a_scene_draws_the_scene_s_noise() -> None:
    """Noise is of absolute latent places: two overlapping tiles agree, also across blocks and left of the origin."""
    scene = block_noise((3, 40, 50), (-20, -7), 5, "noise", 1, 2, 3)
    for top, left, height, width in ((0, 0, 16, 16), (3, 30, 30, 20), (25, 6, 15, 33)):
        tile = block_noise((3, height, width), (top - 20, left - 7), 5, "noise", 1, 2, 3)
        np.testing.assert_array_equal(tile, scene[:, top : top + height, left : left + width])
    assert abs(scene.mean()) < 0.05 and 0.95 < scene.std() < 1.05


def test_a_state_keeps_the_denoiser_s_features_only_on_request(ldm: LDM, batch: Batch) -> None:
    found: list[torch.Tensor] = []

    def watch(state: State) -> Decision:
        found.append(state.unet_features)
        return Decision(state.t * (0.5 if state.nfe[0] == 0 else -1.0), {})

    for asked in (False, True):
        sample(ldm, batch.lr, [1, 2, 3], [0, 0, 0], watch, SamplerConfig(), 0, with_features=asked)
    assert [bool(features.any()) for features in found] == [False, False, False, True]
