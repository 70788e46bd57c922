"""Off-policy evaluation: estimators rank policies of known worth, and select the checkpoint that becomes the policy."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_processes as toys
from safetensors.torch import load_file
from scipy.stats import spearmanr

from orl_ldm.errors import UserError
from orl_ldm.learn import CriticConfig, JudgeConfig, TrainConfig, train
from orl_ldm.learn.checkpoint import Progress
from orl_ldm.learn.critics import Critics
from orl_ldm.learn.data import Dataset, load
from orl_ldm.learn.holdout import drawn, part, share, split
from orl_ldm.learn.learner import Metrics
from orl_ldm.learn.ope import checkpoints, estimates
from orl_ldm.learn.ope.checkpoint_selection import CheckpointSelection, is_due
from orl_ldm.learn.ope.estimates import difference, of_members
from orl_ldm.learn.ope.fqe import FittedQ
from orl_ldm.learn.ope.importance import weighted_importance
from orl_ldm.policy import BetaPolicy, BroadPolicy, load_policy

JUDGE = JudgeConfig(hidden=(32, 32), steps=200, members=2, batch_size=128, learning_rate=5e-3)
#: Means of (go, aim): going on with a bad aim and with a better one, and stopping at once.
PLANS = [(0.8, 0.05), (0.8, 0.25), (0.3, 0.5)]


class Plan(BroadPolicy):
    """The same Beta in every state."""

    def __init__(self, toy: toys.Toy, mean: tuple[float, float], concentration: float = 20.0) -> None:
        super().__init__(toy.spec, [concentration * m for m in mean], [concentration * (1 - m) for m in mean])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("ope")
    toys.collect(toys.Patience(), folder / "buffer", images=60)
    return TrainConfig(
        (str(folder / "buffer"),),
        str(folder / "run"),
        weights=toys.WEIGHTS,
        hidden=(16, 16),
        device="cpu",
        critics=CriticConfig(critic_hidden=(16, 16), batch_size=64, epochs=6, steps=2, n_critics=2),
        judge=replace(JUDGE, held_out=0.3, steps=20),
    )


@pytest.fixture(scope="module")
def data(config: TrainConfig) -> Dataset:
    return load(config, torch.device("cpu"))[0]


def worth(plans: list[Plan], held_out: Dataset) -> list[float]:
    """What the plans gain on the held-out images, difficulty aside."""
    return [toys.play(toys.Patience(), plan, held_out.observations[held_out.starts, 1].numpy()) for plan in plans]


def test_images_keep_their_side_and_their_episodes_stay_whole(data: Dataset) -> None:
    held_out = drawn(data.image, 0.3, "held out")
    assert 0.15 < held_out.double().mean() < 0.45
    some = data.image[: len(data.image) // 2]
    assert torch.equal(drawn(some, 0.3, "held out"), held_out[: len(some)])  # whatever else a buffer holds
    one, other = part(data, ~held_out), part(data, held_out)
    assert not set(one.image.tolist()) & set(other.image.tolist())
    assert len(one) + len(other) == len(data)
    for side in (one, other):
        assert torch.equal(side.starts[1:], side.ends.nonzero()[:-1, 0] + 1)
        assert torch.equal(side.episode[side.starts], torch.arange(len(side.starts)))


def test_too_few_images_are_not_split(data: Dataset) -> None:
    few = part(data, data.image < 5)
    assert split(few, 0.3) == (few, None)
    assert split(data, 0.0)[1] is None


def test_fitted_q_ranks_plans_as_their_replay_does(data: Dataset) -> None:
    learned, held_out = split(data, 0.3)
    assert held_out is not None
    plans = [Plan(toys.Patience(), mean) for mean in PLANS]
    judges = [FittedQ(plan, learned, replace(JUDGE, steps=300), 0) for plan in plans]
    found = [of_members(judge.gains(held_out), held_out, 0) for judge in judges]
    assert spearmanr([one.reward for one in found], worth(plans, held_out)).statistic >= 0.9
    assert all(one.low < one.reward < one.high and one.standard_error > 0 for one in found)
    assert all(judge.explained_variance(held_out) > 0.3 for judge in judges)


def test_fitted_q_is_repeatable_and_sees_clamped_actions(data: Dataset) -> None:
    """All values that stop are one action: here every `t_ratio` up to 0, the toy's edge at 0.6 of the range."""
    spec = replace(data.spec, action_names=("t_ratio", "aim"), action_low=(-1.5, 0.0), action_high=(1.0, 1.0))
    named, short = replace(data, spec=spec), replace(JUDGE, steps=10)
    plans = [BroadPolicy(spec, (20 * go, 10.0), (20 * (1 - go), 10.0)) for go in (0.2, 0.5, 0.8)]
    stop, stop_too, go_on = (FittedQ(plan, named, short, 0).gains(named) for plan in plans)
    assert torch.equal(stop, stop_too)
    assert not torch.equal(stop, go_on)


def test_importance_sampling_of_the_behaviour_is_the_behaviour(data: Dataset) -> None:
    same = weighted_importance(Plan(toys.Patience(), (0.5, 0.5), 2.0), data, 0)
    assert same.estimate.reward == pytest.approx(same.estimate.behavior, abs=0.02)
    assert same.effective_sample_size == pytest.approx(len(data.starts))


def test_importance_sampling_finds_the_better_plan_and_says_what_it_rests_on(data: Dataset) -> None:
    good, bad = (weighted_importance(Plan(toys.Patience(), mean, 6.0), data, 0) for mean in ((0.8, 0.5), (0.8, 0.1)))
    assert good.estimate.reward > bad.estimate.high
    assert 5 < good.effective_sample_size < len(data.starts) / 2


def test_the_latest_that_is_not_clearly_behind_the_best_is_selected(data: Dataset) -> None:
    learned, held_out = split(data, 0.3)
    good, level, bad = (constant(data, aim) for aim in (0.0, 1e-6, 3.0))
    selection = CheckpointSelection(good, learned, held_out, JUDGE, 0)
    state, selected = Progress("any"), []
    for epoch, policy in enumerate((bad, good, bad, level, bad), 1):
        state.epochs = epoch
        selection.offer(policy, state)
        selected.append(state.selected)
    assert selected == [1, 2, 2, 4, 4] and [entry["epoch"] for entry in state.judged] == [1, 2, 3, 4, 5]
    assert torch.equal(selection.selected.head.bias, level.head.bias)
    assert all(state.judged[number]["behind"] > state.judged[number]["behind_error"] for number in (2, 4))


def test_what_two_policies_share_cancels_in_their_difference(data: Dataset) -> None:
    learned, held_out = split(data, 0.3)
    assert held_out is not None
    one, other = (FittedQ(Plan(toys.Patience(), (0.8, aim)), learned, JUDGE, 0).gains(held_out) for aim in (0.5, 0.48))
    _, paired = difference(one, other, held_out, 0)
    assert 0 < paired < 0.5 * of_members(one, held_out, 0).standard_error
    mean, error = difference(one + 0.25, one, held_out, 0)
    assert (mean, error) == (pytest.approx(0.25 * held_out.scale), pytest.approx(0, abs=1e-6))


def constant(data: Dataset, aim: float) -> BetaPolicy:
    """A policy that goes on, and aims at the middle (0) or beyond."""
    policy = BetaPolicy(data.spec, (4,))
    torch.nn.init.zeros_(policy.head.weight)
    policy.head.bias.data = torch.tensor([5.0, 2.0 + aim, -5.0, 2.0 - aim])  # alpha of (go, aim), beta of (go, aim)
    return policy


def test_candidates_are_spread_evenly_and_the_last_is_one() -> None:
    assert [e for e in range(1, 41) if is_due(e, 40, 4)] == [10, 20, 30, 40]
    assert [e for e in range(1, 4) if is_due(e, 3, 20)] == [1, 2, 3]
    assert not any(is_due(e, 40, 0) for e in range(1, 41))


def test_the_selected_policy_and_why_survive_an_interruption(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, out=str(tmp_path / "run"))
    original = Critics.epoch

    def struck(self: Critics, index: int) -> Metrics:
        metrics = original(self, index)
        if index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(Critics, "epoch", struck)
        with pytest.raises(KeyboardInterrupt):
            train(config, progress=False)
    resumed, straight = train(config, progress=False), train(replace(config, out=str(tmp_path / "b")), progress=False)
    one, other = load_policy(resumed)[1], load_policy(straight)[1]
    assert one["judged"] == other["judged"] and len(one["judged"]) == 6
    assert one["accepted"] == other["accepted"]
    close = [entry for entry in one["judged"] if entry["behind"] <= max(0, config.judge.margin * entry["behind_error"])]
    accepted = close[-1]
    assert one["accepted"]["epoch"] == accepted["epoch"] and "held-out images" in one["accepted"]["why"]
    gain = accepted["reward"] - accepted["behavior"]
    assert one["estimated_reward"] == pytest.approx(one["behavior_reward"] + gain)
    first, second = (load_file(policy / "policy.safetensors") for policy in (resumed, straight))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_checkpoints_are_kept_on_request_and_estimated(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, out=str(tmp_path / "run"), keep_checkpoints=3)
    with pytest.raises(UserError, match="there are no checkpoints in"):
        checkpoints([config.out])
    policy = train(config, progress=False)
    kept = checkpoints([config.out])
    assert list(kept) == ["run/epoch-00002", "run/epoch-00004", "run/epoch-00006"]
    frame, held_out = estimates(config, kept)
    judged = {entry["epoch"]: entry["reward"] for entry in load_policy(policy)[1]["judged"]}
    np.testing.assert_allclose(frame["fqe"], [judged[2], judged[4], judged[6]], rtol=1e-6)  # as training judged
    assert len(held_out) >= 4
    other = replace(config, out=str(tmp_path / "other" / "run"), seed=1)
    train(other, progress=False)
    both = checkpoints([config.out, other.out])
    assert len(both) == 6 and f"{other.out}/epoch-00002" in both  # two folders of one name are told apart
    with pytest.raises(UserError, match="leaves fewer than 4 images"):
        estimates(replace(config, judge=replace(config.judge, held_out=0.0)), kept)


def test_a_fraction_of_the_images_is_a_part_of_every_larger_one(tmp_path: Path) -> None:
    toys.collect(toys.Aim(), tmp_path, images=60)
    data = load(TrainConfig((str(tmp_path),), "unused", weights=toys.WEIGHTS), torch.device("cpu"))[0]
    images = [set(share(data, part).image.tolist()) for part in (0.25, 0.5, 1)]
    assert images[0] < images[1] < images[2]
    assert len(images[2]) == 60 and 5 < len(images[0]) < 25
    with pytest.raises(UserError, match="leaves no image to learn from"):
        share(data, 1e-9)
