"""The default learner: a stacked ensemble that is M networks, and policies near the optimum of known processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy_processes as toys

from orl_ldm.buffer import read
from orl_ldm.learn import CriticConfig, JudgeConfig, TrainConfig, train
from orl_ldm.learn.critics import Critics
from orl_ldm.learn.data import Dataset, load
from orl_ldm.learn.networks import Ensemble, Forked, lower_confidence_bound
from orl_ldm.policy import load_policy, open_policy
from orl_ldm.reward import PSNR_SCALE

#: The default recipe in small: networks and batches for problems of two features.
SMALL = CriticConfig(
    critic_hidden=(32, 32),
    batch_size=128,
    epochs=6,
    steps=50,
    n_critics=2,
    learning_rate=2e-3,
    critic_learning_rate=5e-3,
)
#: The learner by itself, on all images.
ALONE = JudgeConfig(held_out=0)


def configured(folder: Path, **settings: object) -> TrainConfig:
    config = TrainConfig((str(folder / "buffer"),), str(folder / "run"), hidden=(32, 32), critics=SMALL, judge=ALONE)
    return replace(config, weights=toys.WEIGHTS) if not settings else replace(config, **settings)  # type: ignore[arg-type]


def made(config: TrainConfig) -> tuple[Critics, Dataset]:
    """(a new learner, its data)."""
    data = load(config, torch.device("cpu"))[0]
    torch.manual_seed(0)
    return config.critics.create(data, config), data


def test_the_ensemble_is_separate_networks() -> None:
    torch.manual_seed(0)
    ensemble, x = Ensemble(3, 4, (8, 6)), torch.randn(10, 4)
    q = ensemble(x)  # (M, B)
    for member in range(3):
        h = x
        for layer, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            h = F.silu(F.layer_norm(h, h.shape[-1:])) if layer else h
            h = h @ weight[member] + bias[member]
        torch.testing.assert_close(q[member], h[:, 0])


def test_stopping_and_going_on_have_networks_of_their_own() -> None:
    torch.manual_seed(0)
    forked, x = Forked(3, 4, (8,), outputs=2), torch.randn(7, 4)
    stops = torch.tensor([True, False, False, True, False, True, False])
    expected = torch.where(stops[:, None], forked.stop.outputs(x), forked.on.outputs(x))
    torch.testing.assert_close(forked.outputs(x, stops), expected)
    for all_of_them, network in ((True, forked.stop), (False, forked.on)):
        torch.testing.assert_close(forked.outputs(x, torch.full((7,), all_of_them)), network.outputs(x))


def test_a_lower_confidence_bound_is_standard_deviations_below_the_mean() -> None:
    bound = lower_confidence_bound(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), 0.5)
    assert bound.tolist() == pytest.approx([2 - 0.5 * 2**0.5, 5.0])


def test_a_plan_whose_later_step_must_be_good_is_found(tmp_path: Path) -> None:
    """Where one-step improvement fails: in the data, going on paid less than stopping."""
    toy = toys.Stops()
    toys.collect(toy, tmp_path / "buffer", images=60)
    policy, _ = load_policy(train(configured(tmp_path), progress=False))
    assert mean_advantage_of_going_on(tmp_path / "buffer") < -0.3
    assert toys.play(toy, policy) > 0.8  # the optimum is 1, stopping at once 0.3


def mean_advantage_of_going_on(buffer: Path) -> float:
    """Mean reward of the behaviour's episodes with a second decision, less that of the others, image by image."""
    data = read(buffer)
    starts, stops = data.episode_bounds.T
    reward, image, went_on = data.terms[stops - 1, 0] / PSNR_SCALE, data.image_id[starts], stops - starts > 1
    differences = [
        reward[(image == i) & went_on].mean() - reward[(image == i) & ~went_on].mean()
        for i in np.unique(image)
        if 0 < went_on[image == i].sum() < (image == i).sum()
    ]
    return float(np.mean(differences))


def test_one_policy_serves_every_preference(tmp_path: Path) -> None:
    """PSNR wants one action and SSIM another; the policy follows the preference."""
    toy = toys.Tradeoff()
    toys.collect(toy, tmp_path / "buffer", images=60)
    config = configured(tmp_path, preference_conditioned=True)
    folder = train(config, progress=False)
    opened = [open_policy(folder, words, toy.spec) for words in ("psnr=1", "distortion=1", "ssim=1")]
    assert all(one.policy.spec == toy.spec and sum(one.weights.values()) == pytest.approx(1) for one in opened)
    assert len({one.digest for one in opened}) == 3
    assert [toys.mean_of(toy, one.policy) for one in opened] == pytest.approx([0.2, 0.5, 0.8], abs=0.12)


def test_the_weights_make_a_value_of_the_terms(tmp_path: Path) -> None:
    toys.collect(toys.Tradeoff(), tmp_path / "buffer", 20)
    learner, data = made(configured(tmp_path, preference_conditioned=True))
    weights = learner.preferences.draw(len(data))
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(data)))
    gained = (learner.preferences.gains * learner.preferences.shares(weights)).sum(-1)
    spread = torch.einsum("np,pq,nq->n", weights, data.term_covariance, weights).sqrt()
    torch.testing.assert_close(gained, (data.term_gains * weights).sum(-1) / spread)
    seen = torch.cat([data.observations, weights], dim=-1)
    terms = learner.terms(learner.critic, seen, data.actions)
    assert terms.shape == (SMALL.n_critics, len(data), 4)
    expected = (terms * learner.preferences.shares(weights)).sum(-1)
    torch.testing.assert_close(learner.q(learner.critic, seen, data.actions), expected)


def test_what_all_rollouts_of_an_image_gain_ends_in_its_offset(tmp_path: Path) -> None:
    toys.collect(toys.Patience(), tmp_path / "buffer", 30)
    fast = replace(SMALL, offset_learning_rate=5e-2)
    config = configured(tmp_path, weights=toys.WEIGHTS, critics=fast)
    data = load(config, torch.device("cpu"))[0]
    _, image = data.image.unique(return_inverse=True)
    torch.manual_seed(0)
    added = torch.randn(int(image.max()) + 1)
    shifted = data.rewards.clone()
    shifted[data.ends] += added[image]
    learner = config.critics.create(replace(data, rewards=shifted), config)
    for epoch in range(2):
        learner.epoch(epoch)
    learned = learner.offsets.weight.detach()[:, 0]
    assert torch.corrcoef(torch.stack([learned, added]))[0, 1] > 0.9


def test_the_best_candidate_is_no_worse_than_what_was_logged_and_keeps_fixed_actions(tmp_path: Path) -> None:
    toys.collect(toys.Patience(), tmp_path / "buffer", 60)
    learner, data = made(configured(tmp_path, weights=toys.WEIGHTS, fixed_actions={"aim": 0.25}))
    observations, actions = data.observations[:9], data.actions[:9]
    best, gain = learner.seek(observations, *learner.actor.concentrations(observations), actions)
    torch.testing.assert_close(best[:, 1], torch.full((9,), 0.25), atol=1e-3, rtol=0)
    alpha, beta = learner.actor.concentrations(observations)
    mean, logged = alpha / (alpha + beta), torch.stack([actions[:, 0], best[:, 1]], dim=1)
    value = [
        lower_confidence_bound(learner.q(learner.critic, observations, a), SMALL.actor_lower_confidence_bound)
        for a in (best, logged, mean)
    ]
    assert (value[0] >= value[1] - 1e-6).all()
    torch.testing.assert_close(gain, (value[0] - value[2]).clamp(min=0))
    assert (gain > 0).any()


def test_critics_judge_the_plan_with_the_actor_s_later_stop_and_its_fixed_actions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.collect(toys.Stops(), tmp_path / "buffer", 20)
    learner, _ = made(configured(tmp_path, weights=toys.WEIGHTS, fixed_actions={"aim": 0.25}))
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(learner, "terms", lambda critics, seen, actions: asked.append(actions) or actions[None, :, :1])
    observations = torch.tensor([[0.0, 0.3], [1.0, 0.3]])
    alpha, beta = learner.actor.concentrations(observations)
    learner.plan_loss(observations, alpha, beta)
    plan, own = learner.policy.plan(observations), alpha / (alpha + beta)
    torch.testing.assert_close(asked[0], torch.stack([torch.stack([plan[0, 0], own[0, 1]]), own[1]]))
    torch.testing.assert_close(own[:, 1], torch.full((2,), 0.25))
