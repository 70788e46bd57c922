"""The reward that is learned: composed, compared with the image's other rollouts, and in standard deviations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_processes as toys

from orl_ldm.buffer import BufferWriter, read
from orl_ldm.errors import UserError
from orl_ldm.learn import TrainConfig
from orl_ldm.learn.data import Dataset, leave_one_out, load
from orl_ldm.learn.returns import discounted_returns

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patience")
    toys.collect(toys.Patience(), folder, images=20, rollouts=4)
    return folder


def prepared(folder: Path | str, **settings: object) -> Dataset:
    config = TrainConfig((str(folder),), "unused", weights=toys.WEIGHTS)
    return load(replace(config, **settings), CPU)[0]  # type: ignore[arg-type]


def test_the_baseline_of_an_episode_is_the_mean_of_the_images_other_rollouts() -> None:
    reward, images = np.array([1.0, 2.0, 6.0, 10.0, 5.0]), np.array([7, 7, 7, 3, 9])
    assert leave_one_out(reward, images).tolist() == [4.0, 3.5, 1.5, 4.8, 4.8]  # a lone rollout: the mean of all


def test_the_baseline_takes_out_what_images_differ_by(folder: Path) -> None:
    data = prepared(folder)
    assert float(data.episode_rewards.std()) > 2.0  # mostly how difficult images are
    assert data.scale < 1.0
    returns = discounted_returns(data.rewards, data.ends, 1.0)[data.starts]
    assert float(returns.std()) == pytest.approx(1.0, rel=0.02)
    assert float((returns * data.scale + data.baselines - data.episode_rewards).abs().max()) < 1e-5


def test_states_are_followed_by_the_next_of_their_episode(folder: Path) -> None:
    data = prepared(folder)
    inner = ~data.ends
    assert inner.any()
    assert data.next_observations[inner].equal(data.observations[inner.nonzero()[:, 0] + 1])
    assert data.next_observations[data.ends].equal(data.observations[data.ends])
    assert data.actions.min() > 0 and data.actions.max() < 1


def test_a_missing_buffer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no buffer '.*nowhere': run collect first \(make collect"):
        prepared(tmp_path / "nowhere")


def test_a_buffer_s_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for place in ("~/home", "x::y/[b] #1"):
        toys.collect(toys.Aim(), place, images=2, rollouts=2)
        assert len(prepared(place)) > 0


def test_buffers_with_other_features_are_refused(tmp_path: Path, folder: Path) -> None:
    toys.collect(toys.Aim(), tmp_path / "aim", images=2, rollouts=2)
    with pytest.raises(UserError, match="feature_names"):
        prepared(folder, buffers=(str(folder), str(tmp_path / "aim")))


def test_an_unknown_setting_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="unknown reward setting 'cheap'"):
        prepared(folder, weights=None, setting="cheap")


def test_other_reward_terms_are_refused(tmp_path: Path, folder: Path) -> None:
    source = read(folder)
    header = replace(source.header, term_names=("psnr", "ssim", "lpips", "nfe", "joules"))
    BufferWriter(tmp_path, header).write("one", source.columns, list(source.images.values()))
    with pytest.raises(UserError, match="reward terms psnr, ssim, lpips, nfe, joules; needed are"):
        prepared(tmp_path)


def test_a_single_episode_is_too_little(tmp_path: Path) -> None:
    toys.collect(toys.Aim(), tmp_path, images=1, rollouts=1)
    with pytest.raises(UserError, match="a single episode"):
        prepared(tmp_path)


def test_masked_features_and_fixed_actions_must_exist(folder: Path) -> None:
    toys.collect(toys.Aim(), folder.parent / "aim", images=2)
    aim = {"buffers": (str(folder.parent / "aim"),)}
    for wrong, sentence in (
        ({"mask_features": ("lr/",)}, "train.mask_features names 'lr/'; the features are position/decision, character"),
        ({"fixed_actions": {"speed": 1.0}}, "train.fixed_actions names the action 'speed'; the actions are go, aim"),
        ({"fixed_first_actions": {"aim": 9.0}}, "aim = 9.0 lies outside its bounds"),
        (aim | {"fixed_first_actions": {"aim": 0.9}}, "fixed_first_actions needs the feature 'position/decision'"),
    ):
        with pytest.raises(UserError, match=sentence):
            prepared(folder, **wrong)
