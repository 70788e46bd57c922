"""d3rlpy's algorithms on our buffer: policies that are theirs to 1e-5, in our own files, resumed bit-equal."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy_processes as toys
from safetensors.torch import load_file

from orl_ldm.errors import UserError
from orl_ldm.learn import D3rlpyConfig, JudgeConfig, TrainConfig, train
from orl_ldm.learn.d3rlpy_learner import NAMES, D3rlpy
from orl_ldm.learn.data import load
from orl_ldm.learn.learner import Metrics
from orl_ldm.policy import SquashedPolicy, load_policy
from orl_ldm.policy.beta import mean_action, sample_action

TINY = D3rlpyConfig(epochs=3, steps=5, batch_size=16)


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buffer")
    toys.collect(toys.Patience(), folder, images=10, rollouts=4)
    return folder


@pytest.fixture(params=NAMES)
def config(request: pytest.FixtureRequest, buffer: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        (str(buffer),),
        str(tmp_path / "run"),
        f"d3rlpy-{request.param}",
        weights=toys.WEIGHTS,
        device="cpu",
        d3rlpy=TINY,
        judge=JudgeConfig(held_out=0),
    )


def test_the_policy_is_d3rlpy_s_own_to_float_accuracy(config: TrainConfig) -> None:
    data = load(config, torch.device("cpu"))[0]
    torch.manual_seed(0)
    learner = TINY.create(data, config)
    learner.epoch(0)
    predicted = torch.from_numpy(learner.algorithm.predict(learner.policy.normalise(data.observations).numpy()))
    low, high = torch.tensor(data.spec.action_low), torch.tensor(data.spec.action_high)
    expected = low + (predicted + 1) / 2 * (high - low)
    torch.testing.assert_close(mean_action(learner.policy, data.observations), expected, atol=1e-5, rtol=0)


def test_each_yields_a_policy_in_our_own_files(config: TrainConfig) -> None:
    policy, facts = load_policy(train(config, progress=False))
    assert isinstance(policy, SquashedPolicy)
    assert (facts["algo"], facts["steps"], facts["accepted"]["epoch"]) == (config.algo, 15, 3)
    observations = torch.zeros(6, 2)
    samples = sample_action(policy, observations, torch.linspace(0.05, 0.95, 12).view(6, 2))
    assert samples.std(0).min() > 0.02  # it can be explored with


def test_a_stopped_run_goes_on_bit_equal(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    original = D3rlpy.epoch

    def struck(self: D3rlpy, index: int) -> Metrics:
        metrics = original(self, index)
        if index == 1:
            signal.raise_signal(signal.SIGINT)
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(D3rlpy, "epoch", struck)
        with pytest.raises(KeyboardInterrupt):
            train(config, progress=False)
    resumed = train(config, progress=False)
    straight = train(replace(config, out=config.out + "-straight"), progress=False)
    one, other = (load_file(policy / "policy.safetensors") for policy in (resumed, straight))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_td3_plus_bc_aims_better_than_the_behaviour(tmp_path: Path) -> None:
    toy = toys.Aim()
    behaviour = toys.collect(toy, tmp_path / "buffer")
    config = TrainConfig(
        (str(tmp_path / "buffer"),),
        str(tmp_path / "run"),
        "d3rlpy-td3plusbc",
        weights=toys.WEIGHTS,
        d3rlpy=D3rlpyConfig(epochs=1, steps=150, batch_size=100),
        judge=JudgeConfig(held_out=0),
    )
    assert toys.play(toy, load_policy(train(config, progress=False))[0]) > behaviour + 0.2


def test_what_it_needs_is_said(buffer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig((str(buffer),), str(tmp_path / "run"), "d3rlpy-iql", weights=toys.WEIGHTS)
    with pytest.raises(UserError, match=r'"d3rlpy-iql" does not support train.mask_features'):
        train(replace(config, mask_features=("position/",)), progress=False)
    monkeypatch.setitem(sys.modules, "d3rlpy", None)
    with pytest.raises(UserError, match=r"needs the extra: pip install 'orl-ldm\[d3rlpy\]'"):
        train(config, progress=False)
