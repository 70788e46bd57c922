"""The default learner: a stacked ensemble that is M networks, and policies near the optimum of known processes."""

from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy_processes as toys

from orl_ldm.buffer import read
from orl_ldm.learn import CriticConfig, JudgeConfig, TrainConfig, train
from orl_ldm.learn.critics import Critics
from orl_ldm.learn.data import load
from orl_ldm.learn.fqe import FittedQ
from orl_ldm.learn.networks import Ensemble, Forked, pessimistic
from orl_ldm.policy import BetaPolicy, PlannedPolicy, PolicySpec, load_policy, under
from orl_ldm.policy.beta import mean_action, to_unit
from orl_ldm.reward import PSNR_SCALE

#: The default recipe in small: networks and batches for problems of two features; what suits an image can be told.
SMALL = CriticConfig(critic_hidden=(64, 64), batch_size=256, epochs=15, sight=1.0)
#: The learner by itself, on all images.
ALONE = JudgeConfig(held_out=0)


def trained(toy: toys.Toy, folder: Path, images: int = 100) -> tuple[float, BetaPolicy]:
    """(mean reward of the behaviour, the policy learned from it)."""
    behaviour = toys.collect(toy, folder / "buffer", images)
    config = TrainConfig(
        (str(folder / "buffer"),),
        str(folder / "run"),
        weights=toys.WEIGHTS,
        hidden=(64, 64),
        critics=SMALL,
        judge=ALONE,
    )
    return behaviour, load_policy(train(config, progress=False))[0]


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


def test_stopping_and_going_on_are_told_by_networks_of_their_own() -> None:
    torch.manual_seed(0)
    forked, x = Forked(3, 4, (8,), outputs=2), torch.randn(7, 4)
    stops = torch.tensor([True, False, False, True, False, True, False])
    expected = torch.where(stops[:, None], forked.stop.outputs(x), forked.on.outputs(x))
    torch.testing.assert_close(forked.outputs(x, stops), expected)
    for all_of_them, network in ((True, forked.stop), (False, forked.on)):
        torch.testing.assert_close(forked.outputs(x, torch.full((7,), all_of_them)), network.outputs(x))


def test_pessimism_is_standard_deviations_below_the_mean() -> None:
    assert pessimistic(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), 0.5).tolist() == pytest.approx([2 - 0.5 * 2**0.5, 5.0])


def test_one_decision_is_learned_for_every_image(tmp_path: Path) -> None:
    toy = toys.Aim()
    behaviour, policy = trained(toy, tmp_path)
    assert behaviour < 0.6
    assert toys.play(toy, policy) > 0.97  # the optimum is 1


@dataclass(frozen=True)
class Positioned(toys.Aim):
    """The same, with a feature that says that the episode begins."""

    spec: PolicySpec = PolicySpec(("position/decision", "character"), ("aim",), (0.0,), (2.0,))

    def observe(self, character: toys.Floats, step: int) -> toys.Floats:
        return np.stack([np.zeros_like(character), character], axis=1).astype(np.float32)


def test_half_way_from_one_plan_for_all_to_what_suits_each_image(tmp_path: Path) -> None:
    """The plan is the action that is best on average; from there the policy goes as far as it is told."""
    toy, sight = Positioned(), replace(SMALL, first_sight=0.5)
    toys.collect(toy, tmp_path / "buffer", images=100)
    folders = (str(tmp_path / "buffer"),), str(tmp_path / "run")
    config = TrainConfig(*folders, weights=toys.WEIGHTS, critics=sight, judge=ALONE)
    policy, _ = load_policy(train(config, progress=False))
    assert isinstance(policy, PlannedPolicy)
    character = np.linspace(-1, 1, 201, dtype=np.float32)
    observations = torch.from_numpy(toy.observe(character, 0))
    suits = 2 * torch.from_numpy(toys.target(character))
    half = mean_action(policy, observations)[:, 0]
    plan, own = 2 * policy.plan(observations)[:, 0], mean_action(policy.own, observations)[:, 0]
    torch.testing.assert_close(plan, suits.mean().expand(201), atol=0.1, rtol=0)
    torch.testing.assert_close(own, suits, atol=0.2, rtol=0)
    torch.testing.assert_close(half, (plan + own) / 2)


def test_a_plan_leaves_to_others_what_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Critics are asked about a plan with the actor's word on going on, and with what is held."""
    toys.collect(toys.Patience(), tmp_path / "buffer", 20)
    config = TrainConfig((str(tmp_path / "buffer"),), "", weights=toys.WEIGHTS, critics=SMALL, hold={"aim": 0.25})
    data = load(config, torch.device("cpu"))[0]
    names = {"feature_names": ("position/decision", "character"), "action_names": ("step", "aim")}
    learner = Critics(replace(data, spec=replace(data.spec, **names)), config)
    assert isinstance(learner.policy, PlannedPolicy)
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(learner, "terms", lambda critics, seen, actions: asked.append(actions) or actions[None, :, :1])
    observations = torch.tensor([[0.0, 0.3], [1.0, 0.3]])
    alpha, beta = learner.actor.concentrations(observations)
    learner.plan_loss(observations, alpha, beta)
    plan, own = learner.policy.plan(observations), alpha / (alpha + beta)
    torch.testing.assert_close(asked[0], torch.stack([torch.stack([plan[0, 0], own[0, 1]]), own[1]]))
    torch.testing.assert_close(own[:, 1], torch.full((2,), 0.25))


@pytest.mark.parametrize("toy", [toys.Patience(), toys.Stops()])
def test_a_plan_whose_later_step_must_be_good_is_found(tmp_path: Path, toy: toys.Toy) -> None:
    """Where one-step improvement fails: in the data, going on paid less than stopping."""
    _, policy = trained(toy, tmp_path)
    assert mean_advantage_of_going_on(tmp_path / "buffer") < -0.3
    assert toys.play(toy, policy) > 0.85  # the optimum is 1, stopping at once 0.3


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
    """PSNR wants one action and SSIM another: the dial moves between them, and past policies stay as they were."""
    toy = toys.Dial()
    toys.collect(toy, tmp_path / "buffer", images=100)
    folders = (str(tmp_path / "buffer"),), str(tmp_path / "run")
    config = TrainConfig(*folders, hidden=(64, 64), critics=SMALL, dial=True, judge=ALONE)
    policy, facts = load_policy(train(config, progress=False))
    assert policy.spec.preference_names == ("psnr", "ssim", "lpips", "nfe")
    means = []
    for words in ("psnr=1", "fidelity=1", "ssim=1"):
        held, weights = under(policy, facts, words, "it")
        assert held.spec == toy.spec
        means.append(toys.mean_of(toy, held))
        assert sum(astuple(weights)) == pytest.approx(1)
    assert means == pytest.approx([0.2, 0.5, 0.8], abs=0.08)
    by_psnr = load(replace(config, weights=toys.WEIGHTS), torch.device("cpu"))[0]
    gains = []
    for words in ("psnr=1", "fidelity=1", "ssim=1"):  # and is judged as it is turned
        turned, _ = under(policy, facts, words, "it")
        gains.append(float(FittedQ(turned, by_psnr, JudgeConfig(steps=300), 0).gains(by_psnr).mean()))
    assert gains[0] > gains[1] > gains[2]


def test_the_weights_make_a_value_of_the_terms(tmp_path: Path) -> None:
    toys.collect(toys.Dial(), tmp_path / "buffer", 20)
    config = TrainConfig((str(tmp_path / "buffer"),), "", critics=SMALL, dial=True)
    data = load(config, torch.device("cpu"))[0]
    learner = Critics(data, config)
    torch.manual_seed(0)
    weights = learner.preferences.draw(len(data))
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(data)))
    gained = (learner.preferences.gains * learner.preferences.shares(weights)).sum(-1)
    spread = torch.einsum("np,pq,nq->n", weights, data.gain_covariance, weights).sqrt()
    torch.testing.assert_close(gained, (data.gains * weights).sum(-1) / spread)
    seen = torch.cat([data.observations, weights], dim=-1)
    terms = learner.terms(learner.critic, seen, data.actions)
    assert terms.shape == (SMALL.critics, len(data), 4)
    expected = (terms * learner.preferences.shares(weights)).sum(-1)
    torch.testing.assert_close(learner.q(learner.critic, seen, data.actions), expected)


def test_what_an_image_s_other_rollouts_were_like_is_not_learned(tmp_path: Path) -> None:
    """What is added to all the gains of an image ends in its offset; without a baseline there are no offsets."""
    toys.collect(toys.Patience(), tmp_path / "buffer", 30)
    config = TrainConfig((str(tmp_path / "buffer"),), "", weights=toys.WEIGHTS, critics=SMALL)
    data = load(config, torch.device("cpu"))[0]
    _, image = data.image.unique(return_inverse=True)
    torch.manual_seed(0)
    added = torch.randn(int(image.max()) + 1)
    shifted = data.rewards.clone()
    shifted[data.ends] += added[image]
    for one in (config, replace(config, image_baseline=False)):
        torch.manual_seed(0)
        learner = Critics(replace(data, rewards=shifted), one)
        for epoch in range(5):
            learner.epoch(epoch)
        learned = learner.offsets.weight.detach()[:, 0]
        if one.image_baseline:
            assert torch.corrcoef(torch.stack([learned, added]))[0, 1] > 0.9
        else:
            assert learned.eq(0).all()


def test_a_plan_beyond_a_worse_one_is_sought(tmp_path: Path) -> None:
    """Actions that are held stay held among the candidates, and the best of them is no worse than what was logged."""
    toys.collect(toys.Patience(), tmp_path / "buffer", 60)
    config = TrainConfig((str(tmp_path / "buffer"),), "", weights=toys.WEIGHTS, critics=SMALL, hold={"aim": 0.25})
    data = load(config, torch.device("cpu"))[0]
    torch.manual_seed(0)
    learner = Critics(data, config)
    observations, actions = data.observations[:9], data.actions[:9]
    best, gain = learner.seek(observations, *learner.policy.concentrations(observations), actions)
    torch.testing.assert_close(best[:, 1], torch.full((9,), 0.25), atol=1e-3, rtol=0)
    held = torch.stack([actions[:, 0], best[:, 1]], dim=1)
    mean = learner.mean(observations)
    value = [pessimistic(learner.q(learner.critic, observations, a), SMALL.actor_pessimism) for a in (best, held, mean)]
    assert (value[0] >= value[1] - 1e-6).all()
    torch.testing.assert_close(gain, (value[0] - value[2]).clamp(min=0))
    assert (gain > 0).any()


def test_where_an_episode_begins_targets_have_a_pessimism_of_their_own(tmp_path: Path) -> None:
    toys.collect(toys.Patience(), tmp_path / "buffer", 10)
    config = TrainConfig((str(tmp_path / "buffer"),), "", weights=toys.WEIGHTS, critics=SMALL)
    data = load(config, torch.device("cpu"))[0]
    observations = torch.tensor([[0.0, 1.0], [0.5, 1.0]])
    assert Critics(data, config).pessimism(observations).tolist() == [SMALL.target_pessimism] * 2
    named = replace(data, spec=replace(data.spec, feature_names=("position/decision", "character")))
    assert Critics(named, config).pessimism(observations).tolist() == [SMALL.first_pessimism, SMALL.target_pessimism]


def test_critics_see_what_actions_do(tmp_path: Path) -> None:
    """A step beyond its limit is the step at the limit."""
    toys.collect(toys.Patience(), tmp_path / "buffer", 10)
    config = TrainConfig((str(tmp_path / "buffer"),), "", weights=toys.WEIGHTS, critics=SMALL)
    data = load(config, torch.device("cpu"))[0]
    spec = replace(data.spec, action_names=("step", "other"), action_low=(-0.25, 0.0), action_high=(1.0, 1.0))
    named = replace(data, spec=spec)
    learner = Critics(named, config)
    states = data.observations[:1].expand(3, -1)
    actions = to_unit(spec, torch.tensor([[-0.2, 0.5], [-0.1, 0.5], [0.1, 0.5]]))
    said = learner.q(learner.critic, states, actions).T
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[1], said[2])
