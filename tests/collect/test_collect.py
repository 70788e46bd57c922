"""A collection is the same set of episodes however it was interrupted, split or stored."""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orl_ldm.buffer import Transitions, read
from orl_ldm.buffer.selection import Selection
from orl_ldm.buffer.verification import verify
from orl_ldm.collect import collector
from orl_ldm.collect.collector import collect
from orl_ldm.collect.config import CollectConfig
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.images.config import DataConfig
from orl_ldm.pipeline import load_pipeline
from orl_ldm.policy import BetaPolicy, PolicySpec, save_policy
from orl_ldm.reward import SETTINGS, TERMS, compose

CONFIG = CollectConfig(images=12, rollouts=2, unit_images=1)
SAMPLER = SamplerConfig(nfe_max=4)


def run(folder: Path, ldm: LDM, data: DataConfig, config: CollectConfig = CONFIG) -> Transitions:
    collect(replace(config, out=str(folder)), data, SAMPLER, ldm)
    return read(folder)


def same_episodes(a: Transitions, b: Transitions) -> None:
    """Equal in everything but the measured seconds."""
    for name in ("episode_id", "image_id", "terminals"):
        np.testing.assert_array_equal(a.columns[name], b.columns[name])
    for name in ("observations", "actions", "log_probs"):
        np.testing.assert_allclose(a.columns[name], b.columns[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(a.terms[:, :4], b.terms[:, :4], atol=1e-4)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ldm: LDM, data: DataConfig) -> Transitions:
    return run(tmp_path_factory.mktemp("undisturbed"), ldm, data)


def test_a_collector_killed_five_times_loses_and_repeats_nothing(
    tmp_path: Path, ldm: LDM, data: DataConfig, undisturbed: Transitions
) -> None:
    chance = random.Random(0)
    config = replace(CONFIG, out=str(tmp_path))
    killed = 0
    for _ in range(5):
        child = multiprocessing.get_context("fork").Process(target=collect, args=(config, data, SAMPLER, ldm))
        child.start()
        time.sleep(chance.uniform(0.05, 0.6))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed >= 3  # the others had nothing left to do
    same_episodes(run(tmp_path, ldm, data), undisturbed)


def test_resuming_does_only_what_is_missing(tmp_path: Path, ldm: LDM, data: DataConfig) -> None:
    config = replace(CONFIG, out=str(tmp_path), images=2)
    first = collect(config, data, SAMPLER, ldm)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = collect(config, data, SAMPLER, ldm)
    assert (first.resumed, second.resumed) == (0, second.units)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_buffer_that_cannot_be_written_is_noticed_before_any_roll_out(
    tmp_path: Path, ldm: LDM, data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise AssertionError("a unit was rolled out")

    monkeypatch.setattr(collector, "roll_out", unreachable)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write to the buffer .*file: .*; make room, set its rights"):
        run(tmp_path / "file", ldm, data)


def test_a_buffer_in_the_home_folder_is_the_same_for_collector_and_reader(
    tmp_path: Path, ldm: LDM, data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    collect(replace(CONFIG, out="~/x::y [1]", images=1), data, SAMPLER, ldm)
    assert len(read("~/x::y [1]").episode_bounds) == len(read(tmp_path / "x::y [1]").episode_bounds) == 2


def test_machines_with_a_part_each_publish_what_one_would(
    tmp_path: Path, ldm: LDM, data: DataConfig, undisturbed: Transitions
) -> None:
    for part in ("3/3", "1/3", "2/3"):
        found = run(tmp_path, ldm, data, replace(CONFIG, part=part))
    same_episodes(found, undisturbed)
    with pytest.raises(UserError, match=r"collect\.part is '3/2'; of 2 parts, give 1/2 to 2/2"):
        run(tmp_path, ldm, data, replace(CONFIG, part="3/2"))


def test_behaviours_are_told_apart_in_one_buffer(tmp_path: Path, ldm: LDM, data: DataConfig) -> None:
    for prior in ({}, {"eta": (1.0, 3.0)}):
        found = run(tmp_path, ldm, data, replace(CONFIG, images=4, prior=prior))
    assert verify(tmp_path) == []
    assert sorted(found.behaviors.values()) == [4 * CONFIG.rollouts] * 2
    one = read(tmp_path, select=Selection(behaviors=(next(name for name, _ in found.behaviors),)))
    assert 0 < len(one) < len(found)


def test_units_and_codecs_change_nothing(tmp_path: Path, ldm: LDM, data: DataConfig, undisturbed: Transitions) -> None:
    other = run(tmp_path, ldm, data, replace(CONFIG, unit_images=5, codec="zarr"))
    order = np.argsort(other.episode_id, kind="stable"), np.argsort(undisturbed.episode_id, kind="stable")
    np.testing.assert_array_equal(other.episode_id[order[0]], undisturbed.episode_id[order[1]])
    np.testing.assert_allclose(other.actions[order[0]], undisturbed.actions[order[1]], atol=1e-3)


def test_raw_terms_are_on_the_last_row_of_each_episode(undisturbed: Transitions) -> None:
    ends = undisturbed.terminals
    assert undisturbed.header.term_names == tuple(TERMS)
    assert ends.sum() == CONFIG.images * CONFIG.rollouts
    assert undisturbed.terms[ends][:, :2].all() and not undisturbed.terms[~ends].any()
    nfe = undisturbed.terms[ends][:, 3]
    assert (nfe <= SAMPLER.nfe_max).all()
    bounds = undisturbed.episode_bounds
    np.testing.assert_array_equal(np.diff(bounds, axis=1)[:, 0], nfe + 1)  # one decision more than calls


def test_a_second_round_explores_around_a_policy_and_joins_the_first(
    tmp_path: Path, ldm: LDM, data: DataConfig
) -> None:
    save_policy(BetaPolicy(spec(), (8,)), tmp_path / "policy", {})
    small = replace(CONFIG, images=2)
    run(tmp_path / "a", ldm, data, small)
    run(tmp_path / "b", ldm, data, replace(small, policy=str(tmp_path / "policy"), first_rollout=2))
    both = read([tmp_path / "a", tmp_path / "b"])
    assert both.terminals.sum() == 8


def test_a_policy_for_another_action_space_is_refused(tmp_path: Path, ldm: LDM, data: DataConfig) -> None:
    other = PolicySpec(spec().feature_names, ("t_ratio", "eta"), (0.0, 0.0), (1.0, 1.0))
    save_policy(BetaPolicy(other, (8,)), tmp_path / "policy", {})
    with pytest.raises(UserError, match="another action space"):
        run(tmp_path / "a", ldm, data, replace(CONFIG, policy=str(tmp_path / "policy")))


def test_d3rlpy_takes_the_buffer_as_it_is(undisturbed: Transitions) -> None:
    from d3rlpy.dataset import MDPDataset

    t = undisturbed
    rewards = compose(t.terms, SETTINGS["paper"], SAMPLER.nfe_max).astype(np.float32) * t.terminals
    theirs = MDPDataset(t.observations, t.actions, rewards, t.terminals)
    returns = [episode.compute_return() for episode in theirs.episodes]
    np.testing.assert_allclose(returns, rewards[t.terminals], rtol=1e-6)
    assert len(returns) == CONFIG.images * CONFIG.rollouts


def test_exploration_is_set_by_the_action_s_name() -> None:
    assert load_pipeline("demo", ["collect.concentration={eta=0.5}"]).collect.concentration == {"eta": 0.5}
    for wrong in ("collect.concentration={fog=2}", "collect.prior={fog=[1,1]}"):
        with pytest.raises(UserError, match="there is no action 'fog'; the actions are t_ratio, eta"):
            load_pipeline("demo", [wrong])
