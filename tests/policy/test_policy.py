"""Beta policies: densities, samples, and files that are checked before they are believed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import AffineTransform, Beta, Independent, TransformedDistribution

from orl_ldm.errors import UserError
from orl_ldm.policy import (
    BetaPolicy,
    BroadPolicy,
    Explorer,
    PlannedPolicy,
    PolicySpec,
    SquashedPolicy,
    load_policy,
    save_policy,
)
from orl_ldm.policy.beta import from_unit, log_prob, mean_action, sample_action

SPEC = PolicySpec(("a", "b", "c"), ("t_ratio", "detail"), (0.0, 0.5), (1.0, 1.5))
EPISODES = PolicySpec(("position/decision", "b", "c"), ("t_ratio", "detail"), (0.0, 0.5), (1.0, 1.5))


@settings(max_examples=50, deadline=None)
@given(alpha=st.floats(1.0, 50.0), beta=st.floats(1.0, 50.0), unit=st.floats(0.01, 0.99))
def test_densities_are_torch_s_in_natural_units(alpha: float, beta: float, unit: float) -> None:
    policy = BroadPolicy(SPEC, (alpha, beta), (beta, alpha))
    action = torch.tensor([[unit, 0.5 + unit]])
    base = Beta(torch.tensor([alpha, beta]), torch.tensor([beta, alpha]))
    low, width = torch.tensor(SPEC.action_low), torch.tensor([1.0, 1.0])
    expected = Independent(TransformedDistribution(base, AffineTransform(low, width)), 1).log_prob(action)
    torch.testing.assert_close(log_prob(policy, torch.zeros(1, 3), action), expected, rtol=1e-3, atol=1e-3)


def test_samples_follow_the_distribution() -> None:
    policy = BroadPolicy(SPEC, (2.0, 5.0), (3.0, 1.5))
    uniforms = torch.from_numpy(np.random.default_rng(0).random((20000, 2)))
    actions = sample_action(policy, torch.zeros(20000, 3), uniforms)
    torch.testing.assert_close(actions.mean(0), mean_action(policy, torch.zeros(1, 3))[0], atol=0.01, rtol=0)
    variance = torch.tensor([2 * 3 / (25 * 6), 5 * 1.5 / (6.5**2 * 7.5)])
    torch.testing.assert_close(actions.var(0), variance, atol=0.003, rtol=0)


def test_exploration_keeps_the_mean_and_widens() -> None:
    policy = BroadPolicy(SPEC, (4.0, 8.0), (6.0, 3.0))
    wide = Explorer(policy, (0.25, 0.25))
    observations = torch.zeros(5000, 3)
    torch.testing.assert_close(mean_action(wide, observations), mean_action(policy, observations))
    uniforms = torch.from_numpy(np.random.default_rng(0).random((5000, 2)))
    spread = [sample_action(p, observations, uniforms).std(0) for p in (policy, wide)]
    assert (spread[1] > 1.3 * spread[0]).all()


def test_exploration_has_a_factor_for_each_action() -> None:
    explorer = Explorer(BroadPolicy(SPEC, (4.0, 8.0), (6.0, 3.0)), (4.0, 0.5))
    alpha, beta = explorer.concentrations(torch.zeros(2, 3))
    assert alpha.tolist() == [[16.0, 4.0]] * 2 and beta.tolist() == [[24.0, 1.5]] * 2


def test_where_an_episode_begins_is_explored_as_widely_as_the_policy_says() -> None:
    explorer = Explorer(BroadPolicy(EPISODES, (4.0, 8.0), (6.0, 3.0)), (4.0, 0.5))
    alpha, beta = explorer.concentrations(torch.tensor([[0.0, 1.0, 1.0], [0.05, 1.0, 1.0]]))
    assert alpha.tolist() == [[4.0, 8.0], [16.0, 4.0]] and beta.tolist() == [[6.0, 3.0], [24.0, 1.5]]


def test_a_saved_policy_comes_back(tmp_path: Path) -> None:
    policy = BetaPolicy(SPEC, (16,))
    policy.normalise.fit(torch.randn(50, 3) * 5 + 1)
    save_policy(policy, tmp_path, {"algo": "critics"})
    back, facts = load_policy(tmp_path)
    observations = torch.randn(7, 3)
    assert torch.equal(mean_action(back, observations), mean_action(policy, observations))
    assert facts == {"algo": "critics"}


def test_a_squashed_policy_comes_back_with_its_mean_and_a_spread(tmp_path: Path) -> None:
    policy = SquashedPolicy(SPEC, (16, 8))
    policy.normalise.fit(torch.randn(50, 3) * 5 + 1)
    save_policy(policy, tmp_path, {})
    back, _ = load_policy(tmp_path)
    assert isinstance(back, SquashedPolicy) and back.hidden == (16, 8)
    observations = torch.randn(7, 3)
    assert torch.equal(mean_action(back, observations), mean_action(policy, observations))
    policy.head.bias.data = torch.tensor([50.0, -50.0])  # tanh is 1 and -1 here: still a density
    torch.testing.assert_close(mean_action(policy, observations), torch.tensor([[1.0, 0.5]]).expand(7, 2))
    assert log_prob(policy, observations, mean_action(policy, observations)).isfinite().all()
    assert sample_action(policy, observations, torch.rand(7, 2)).isfinite().all()


def test_a_planned_policy_goes_as_far_as_its_sight(tmp_path: Path) -> None:
    """Between a plan that sees no image and a policy that does; in later decisions further than in the first."""
    spec = replace(EPISODES, preference_names=("psnr", "lpips"), held=(None, 1.25))
    policy = PlannedPolicy(spec, (16,), sight=(0.0, 0.25))
    nn.init.normal_(policy.planner[-1].weight)
    nn.init.normal_(policy.own.head.weight)
    save_policy(policy, tmp_path, {})
    back, _ = load_policy(tmp_path)
    assert isinstance(back, PlannedPolicy)
    first, later = (
        torch.cat([torch.full((9, 1), t), torch.randn(9, 2), torch.full((9, 2), 0.5)], 1) for t in (0, 0.05)
    )
    plan, own = (from_unit(spec, policy.plan(first))), mean_action(policy.own, later)
    assert torch.equal(plan, plan[:1].expand(9, -1)) and own[:, 0].std() > 0
    torch.testing.assert_close(mean_action(back, first), plan)
    plan = from_unit(spec, policy.plan(later))
    torch.testing.assert_close(mean_action(back, later)[:, 0], (plan + 0.25 * (own - plan))[:, 0])
    torch.testing.assert_close(mean_action(back, later)[:, 1], torch.full((9,), 1.25))  # what is held stays held
    torch.testing.assert_close(sum(back.concentrations(first)), sum(policy.own.concentrations(first)))


def test_a_plan_at_the_end_of_a_range_still_has_a_density() -> None:
    policy, first = PlannedPolicy(EPISODES, (8,), sight=(0.0, 0.5)), torch.zeros(4, 3)
    policy.planner[-1].bias.data = torch.tensor([80.0, -200.0])
    actions = sample_action(policy, first, torch.rand(4, 2))
    torch.testing.assert_close(actions, torch.tensor([[1.0, 0.5]]).expand(4, 2), atol=1e-3, rtol=0)
    assert log_prob(policy, first, actions).isfinite().all()


@pytest.mark.parametrize(
    "damage", ["missing", "truncated", "not json", "other format", "other sizes", "no facts", "odd spec"]
)
def test_a_damaged_policy_is_refused_with_a_sentence(tmp_path: Path, damage: str) -> None:
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {})
    path = tmp_path / "policy.json"
    content = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        weights = tmp_path / "policy.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "not json":
        path.write_text("{")
    elif damage == "other format":
        path.write_text(json.dumps({**content, "format": 99}))
    elif damage == "no facts":
        path.write_text(json.dumps({name: value for name, value in content.items() if name != "facts"}))
    elif damage == "odd spec":
        path.write_text(json.dumps({**content, "spec": [1]}))
    else:
        path.write_text(json.dumps({**content, "hidden": [17]}))
    with pytest.raises(UserError, match="policy"):
        load_policy(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_refused_with_a_sentence(tmp_path: Path) -> None:
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {})
    with pytest.raises(UserError, match="there is no policy in"):
        load_policy(tmp_path / "policy.json")


def test_half_a_policy_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while one policy replaces another one: the weights of one never go with the facts of the other."""
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {"whose": "the first's"})
    monkeypatch.setattr(json, "dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {"whose": "the second's"})
    with pytest.raises(UserError, match="there is no policy in"):
        load_policy(tmp_path)


def test_other_spaces_are_told_apart() -> None:
    with pytest.raises(UserError, match="unknown here: z; missing: c"):
        SPEC.require(PolicySpec(("a", "b", "z"), *list(vars(SPEC).values())[1:]), "the policy")
    with pytest.raises(UserError, match="in another order"):
        SPEC.require(PolicySpec(("b", "a", "c"), *list(vars(SPEC).values())[1:]), "the policy")
    with pytest.raises(UserError, match="its bounds are"):
        SPEC.require(PolicySpec(SPEC.feature_names, SPEC.action_names, (0.0, 0.0), (1.0, 1.5)), "the policy")


HOLDING = replace(
    SPEC, feature_names=("a", "position/decision", "c"), held_first=(1.0, None), held=(None, 1.25)
)  # fmt: skip


def test_a_held_action_is_not_the_policy_s_to_choose() -> None:
    policy = BetaPolicy(HOLDING)
    free = BetaPolicy(replace(HOLDING, held_first=(), held=()))
    free.load_state_dict(policy.state_dict())
    observations = torch.randn(6, 3)
    observations[:, 1] = torch.tensor([0.0, 0.0, 0.0, 0.05, 0.1, 0.15])
    mean, own = mean_action(policy, observations), mean_action(free, observations)
    torch.testing.assert_close(mean[:3, 0], torch.ones(3), atol=2e-4, rtol=0)
    torch.testing.assert_close(mean[3:, 1], torch.full((3,), 1.25), atol=2e-4, rtol=0)
    torch.testing.assert_close(mean[:3, 1], own[:3, 1])
    torch.testing.assert_close(mean[3:, 0], own[3:, 0])


def test_a_held_policy_comes_back_as_it_was(tmp_path: Path) -> None:
    policy, observations = BetaPolicy(HOLDING), torch.randn(4, 3)
    save_policy(policy, tmp_path, {})
    back = load_policy(tmp_path)[0]
    assert back.spec == HOLDING
    torch.testing.assert_close(mean_action(back, observations), mean_action(policy, observations))


def test_hidden_features_change_nothing() -> None:
    policy, observations = BetaPolicy(SPEC), torch.randn(8, 3)
    policy.normalise.fit(observations, hidden=("b",))
    other = observations.clone()
    other[:, 1] += 3
    torch.testing.assert_close(mean_action(policy, other), mean_action(policy, observations), rtol=0, atol=0)
    other[:, 0] += 3
    assert not torch.equal(mean_action(policy, other), mean_action(policy, observations))
