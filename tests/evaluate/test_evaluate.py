"""Comparisons are fair: same budget for the search, same scores whatever the batch, controls that are what they say."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution import LDMSuperResolutionPipeline

from orl_ldm.diffusion.config import LDMConfig, SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.evaluate import fixed
from orl_ldm.evaluate import methods as m
from orl_ldm.evaluate.config import EvaluateConfig
from orl_ldm.evaluate.replay import training_images
from orl_ldm.evaluate.run import Task, _best_fixed, evaluate
from orl_ldm.evaluate.runner import Runner
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import Batch
from orl_ldm.images.resample import downscale
from orl_ldm.images.sources import open_images
from orl_ldm.metrics import Metrics
from orl_ldm.policy import BetaPolicy, save_policy
from orl_ldm.reward import SETTINGS, TERMS, compose, setting
from orl_ldm.streams import block_noise

SAMPLER = SamplerConfig(nfe_max=4)


@pytest.mark.parametrize("kind", fixed.starts())
def test_the_search_keeps_its_budget_and_never_ends_below_its_start(
    ldm: LDM, batch: Batch, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = 0
    real = fixed.sample

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal episodes
        episodes += len(args[2])  # type: ignore[arg-type]
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(fixed, "sample", counted)
    _, first = fixed.search(ldm, batch, Metrics(), SETTINGS["paper"], SAMPLER, 3, 0, kind)
    assert episodes == 3
    episodes = 0
    schedule, best = fixed.search(ldm, batch, Metrics(), SETTINGS["paper"], SAMPLER, 60, 0, kind)
    assert episodes == 60
    assert best >= first
    assert schedule == fixed.search(ldm, batch, Metrics(), SETTINGS["paper"], SAMPLER, 60, 0, kind)[0]


def test_fixed_schedules_are_a_start_and_an_action_or_an_action_for_each_decision() -> None:
    low, high = spec().action_low, spec().action_high
    other = (high[0], *low[1:])
    assert fixed.FixedSchedule.of_unit(np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])).actions == (low, other)
    assert fixed.FixedSchedule((low,)).described() == [
        {"t_ratio": 0.0, "eta": 0.0, "detail": 0.5, "fidelity": 0.0, "grain": 0.0}
    ]
    assert fixed.FixedSchedule.of_unit(np.array([0.0] * 5 + [1.0] * 5 + [0.0] * 5)).actions == (low, high, low)


def test_scores_do_not_depend_on_the_batch_and_are_read_back(tmp_path: Path, ldm: LDM, data: DataConfig) -> None:
    refs = open_images("synthetic", "test", count=3)
    method = m.steered_by(
        ldm,
        "fixed",
        "fixed",
        fixed.FixedSchedule(((0.7, 0.5, 1.1, 0.5, 0.4), (0.4, 0.5, 1.1, 0.5, 0.4))).controller(),
        SAMPLER,
        1,
    )
    heard: list[int] = []
    scores = [
        Runner(tmp_path / str(size), refs, data, ldm, Metrics(), size, lambda what, done, total: heard.append(done))
        .score(method)
        for size in (1, 3)
    ]  # fmt: skip
    np.testing.assert_allclose(scores[0].quality, scores[1].quality, atol=0.05)
    np.testing.assert_array_equal(scores[0].nfe, scores[1].nfe)
    assert heard == [1, 2, 3, 3]

    def never(batch: Batch) -> m.Outcome:
        raise AssertionError("a scored batch was run again")

    again = Runner(tmp_path / "3", refs, data, ldm, Metrics(), 3, lambda *heard: None)
    same = again.score(m.Method("fixed", "fixed", never))
    np.testing.assert_array_equal(same.pixels, scores[1].pixels)


def test_the_projection_control_agrees_with_the_lr_image(ldm: LDM, batch: Batch) -> None:
    plain = m.ldm_alone(ldm, ldm.schedule.grid(3), 0.0, "alone", 0)
    both = [method.run(batch) for method in (plain, m.with_projection(plain))]
    errors = [float((downscale(outcome.images, 4) - batch.lr).abs().mean()) for outcome in both]
    assert errors[1] < errors[0] / 3
    assert both[0].nfe.tolist() == both[1].nfe.tolist() == [3, 3, 3]


def test_dpm_solver_is_the_stock_pipeline_s_with_that_scheduler(
    ldm: LDM, ldm_folder: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(batch, hr=batch.hr[:1], lr=batch.lr[:1], refs=batch.refs[:1])
    outcome = m.dpm_solver(ldm, model_files(str(ldm_folder)).scheduler, 4, 0).run(one)
    shape = (ldm.latent_channels, *batch.lr.shape[-2:])
    drawn = torch.from_numpy(block_noise(shape, (0, 0), 0, "noise", batch.refs[0].image_id, 0, 0))[None]
    module = "diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion_superresolution.randn_tensor"
    monkeypatch.setattr(module, lambda *args, **kwargs: drawn)
    pipeline = LDMSuperResolutionPipeline.from_pretrained(ldm_folder)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++"
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch.lr[:1] * 2 - 1, num_inference_steps=4, output_type="np").images[0]
    assert np.abs(outcome.images[0].permute(1, 2, 0).numpy() - theirs).max() < 0.51 / 255 + 1e-3
    assert outcome.nfe.tolist() == [4]


def test_every_kind_of_input_is_a_row_and_has_its_own_schedule(
    tmp_path: Path, ldm_folder: Path, data: DataConfig
) -> None:
    save_policy(BetaPolicy(spec(), (8,)), tmp_path / "policy", {"ldm_id": "tiny"})
    config = EvaluateConfig(
        out=str(tmp_path / "out"), images=2, degradations=("bicubic", "jpeg40"), ddim_steps=2, etas=(0.0,),
        search_images=2, search_episodes=4,
    )  # fmt: skip
    task = Task("tiny", config, data, LDMConfig(str(ldm_folder)), SAMPLER, tmp_path / "policy", "")
    folder = evaluate(task)
    table = pd.read_csv(folder / "per_image.csv")
    assert not table.duplicated(["method", "input", "image"]).any()
    assert set(table.groupby("method")["input"].nunique()) == {2}
    own = {f"best fixed schedule for {kind}" for kind in config.degradations}
    assert own < set(table["method"])
    bicubic = table[table["method"] == "bicubic"].groupby("input")["psnr"].mean()
    assert bicubic["bicubic"] > bicubic["jpeg40"]
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["inputs"] == ["bicubic", "jpeg40"] and own == set(facts["fixed_schedules"])
    assert facts["roles"]["fixed"] == "best fixed schedule for bicubic"


def test_interpolations_and_the_ceiling_are_free(ldm: LDM, batch: Batch) -> None:
    names = [method.name for method in m.interpolations(ldm)]
    assert names == ["bicubic", "Lanczos", "bicubic + projection", "autoencoder ceiling"]
    for method in m.interpolations(ldm):
        outcome = method.run(batch)
        assert outcome.images.shape == batch.hr.shape
        assert not outcome.nfe.any()
        assert float(outcome.images.min()) >= 0
        assert float(outcome.images.max()) <= 1


def test_what_is_kept_is_of_the_same_settings_alone(tmp_path: Path, ldm: LDM, data: DataConfig) -> None:
    """Scores are of the networks' precision as well, and a search of the seed of its noise."""
    refs = open_images(data.source, data.test_split, data.classes, 2, data.seed)
    halved = {name: copy.deepcopy(getattr(ldm, name)).bfloat16() for name in ("unet", "first_stage")}
    for model in (ldm, replace(ldm, **halved)):
        Runner(tmp_path, refs, data, model, Metrics(), 2, lambda *a: None).score(m.interpolations(ldm)[0])
    assert len(list(tmp_path.glob("*.npz"))) == 2
    for seed in (1, 2):
        config = EvaluateConfig(out=str(tmp_path), seed=seed, search_images=2)
        task = Task("tiny", config, data, LDMConfig(), SAMPLER, tmp_path, "")
        _best_fixed(task, ldm, Metrics(), SETTINGS["paper"], 4, "schedule", lambda *a: None)
    assert len(list((tmp_path / "parts").glob("fixed-*.json"))) == 2


def test_an_interrupted_search_goes_on(
    tmp_path: Path, ldm: LDM, data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[int] = []
    original = fixed.sample

    def sample(*arguments: Any) -> Any:
        played.append(1)
        if len(played) == 14:
            raise KeyboardInterrupt
        return original(*arguments)

    def searched(folder: Path) -> tuple[fixed.FixedSchedule, float]:
        task = Task("tiny", EvaluateConfig(out=str(folder), search_images=2), data, LDMConfig(), SAMPLER, folder, "")
        return _best_fixed(task, ldm, Metrics(), SETTINGS["paper"], 40, "schedule", lambda *a: None)

    straight = searched(tmp_path / "straight")
    monkeypatch.setattr(fixed, "sample", sample)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "broken")
    tries = next((tmp_path / "broken" / "parts").glob("*.tries"))
    kept = tries.read_text()
    tries.write_text("not a reward\n")
    with pytest.raises(UserError, match="damaged"):
        searched(tmp_path / "broken")
    tries.write_text(kept[:-4])  # cut short, as a kill may do
    assert searched(tmp_path / "broken") == straight
    assert len(played) == 14 + 20 - 12  # of 20 tries 13 were done, and the last of them was lost
    assert not list(tmp_path.rglob("*.tries"))


def test_images_that_were_never_logged_are_of_all_scenes(tmp_path: Path, data: DataConfig) -> None:
    logged = open_images(data.source, data.train_split, data.classes, 8, data.seed)
    found = training_images(data, 8, {ref.image_id for ref in logged[:2]}, 10)
    known = {ref.name for ref in logged}
    more = [ref for ref in found if ref.name not in known]
    assert len(found) == 10 and len(more) == 8
    assert len({ref.scene for ref in more}) > 1


def test_a_network_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="there is no network at"):
        m.network("./nowhere.pth", 4, torch.device("cpu"))


def test_rewards_are_lyu_s_table_1() -> None:
    terms = np.array([[30.0, 0.8, 0.3, 4.0, 9.9]])
    assert tuple(TERMS) == ("psnr", "ssim", "lpips", "nfe", "seconds")
    expected = 0.4 * 30 / 40 + 0.3 * 0.8 + 0.2 * 0.7 + 0.1 * (1 - 4 / 20)
    np.testing.assert_allclose(compose(terms, SETTINGS["paper"], 20), [expected])
    assert setting("paper") == SETTINGS["paper"]
    with pytest.raises(UserError, match="unknown reward setting 'best'; choose one of paper, balanced, perceptual"):
        setting("best")
