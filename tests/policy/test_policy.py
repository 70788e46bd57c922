"""Policies: densities and samples of Betas, exploration, plans, fixed actions, masked features."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import AffineTransform, Beta, Independent, TransformedDistribution

from orl_ldm.errors import UserError
from orl_ldm.policy import BetaPolicy, BroadPolicy, Explorer, PlannedPolicy, PolicySpec, SquashedPolicy, with_preference
from orl_ldm.policy.beta import from_unit, log_prob, mean_action, sample_action, to_unit
from orl_ldm.policy.effects import Effects

SPEC = PolicySpec(("a", "b", "c"), ("t_ratio", "detail"), (0.0, 0.5), (1.0, 1.5))
EPISODES = replace(SPEC, feature_names=("position/decision", "b", "c"))
FIXED = replace(EPISODES, fixed_first_actions=(1.0, None), fixed_actions=(None, 1.25))


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


def test_actions_do_not_depend_on_the_caller_s_dtype_or_autocast() -> None:
    torch.manual_seed(0)
    policy, observations, uniforms = BetaPolicy(FIXED), torch.randn(6, 3), torch.rand(6, 2)
    nn.init.normal_(policy.head.weight, std=0.5)

    def acted() -> list[torch.Tensor]:
        actions = sample_action(policy, observations, uniforms)
        return [actions, mean_action(policy, observations), log_prob(policy, observations, actions)]

    expected = acted()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(acted(), expected, strict=True))
    try:
        for dtype in (torch.float64, torch.bfloat16):
            torch.set_default_dtype(dtype)
            assert all(torch.equal(one, other) for one, other in zip(acted(), expected, strict=True))
    finally:
        torch.set_default_dtype(torch.float32)


def test_actions_that_are_not_finite_are_refused() -> None:
    policy, observations = BetaPolicy(SPEC, (4,)), torch.zeros(2, 3)
    observations[1, 2] = torch.nan
    for act in (mean_action, lambda p, o: sample_action(p, o, torch.rand(2, 2)), lambda p, o: log_prob(p, o, o[:, :2])):
        with pytest.raises(UserError, match="the policy's actions are not finite"):
            act(policy, observations)


def test_exploration_keeps_the_mean_and_widens() -> None:
    policy = BroadPolicy(SPEC, (4.0, 8.0), (6.0, 3.0))
    wide = Explorer(policy, (0.25, 0.25))
    observations = torch.zeros(5000, 3)
    torch.testing.assert_close(mean_action(wide, observations), mean_action(policy, observations))
    uniforms = torch.from_numpy(np.random.default_rng(0).random((5000, 2)))
    spread = [sample_action(p, observations, uniforms).std(0) for p in (policy, wide)]
    assert (spread[1] > 1.3 * spread[0]).all()


def test_exploration_has_a_factor_for_each_action_except_in_the_first_decision() -> None:
    explorer = Explorer(BroadPolicy(EPISODES, (4.0, 8.0), (6.0, 3.0)), (4.0, 0.5))
    alpha, beta = explorer.concentrations(torch.tensor([[0.0, 1.0, 1.0], [0.05, 1.0, 1.0]]))
    assert alpha.tolist() == [[4.0, 8.0], [16.0, 4.0]] and beta.tolist() == [[6.0, 3.0], [24.0, 1.5]]


def test_a_squashed_policy_at_its_bounds_still_has_a_density() -> None:
    policy, observations = SquashedPolicy(SPEC, (16, 8)), torch.randn(7, 3)
    policy.head.bias.data = torch.tensor([50.0, -50.0])  # tanh is 1 and -1 here
    torch.testing.assert_close(mean_action(policy, observations), torch.tensor([[1.0, 0.5]]).expand(7, 2))
    assert log_prob(policy, observations, mean_action(policy, observations)).isfinite().all()
    assert sample_action(policy, observations, torch.rand(7, 2)).isfinite().all()


def test_the_first_decision_is_a_plan_that_images_share_and_later_ones_are_the_actor_s() -> None:
    torch.manual_seed(0)
    policy = PlannedPolicy(replace(EPISODES, preference_names=("psnr", "lpips"), fixed_actions=(None, 1.25)), (16,))
    nn.init.normal_(policy.planner[-1].weight)
    nn.init.normal_(policy.actor.head.weight)
    first, later = (
        torch.cat([torch.full((9, 1), t), torch.randn(9, 2), torch.full((9, 2), 0.5)], 1) for t in (0, 0.05)
    )
    plan, own = mean_action(policy, first), mean_action(policy, later)
    torch.testing.assert_close(plan, plan[:1].expand(9, -1))
    assert own[:, 0].std() > 1e-3
    torch.testing.assert_close(plan, from_unit(policy.spec, policy.plan(first)))
    torch.testing.assert_close(own, mean_action(policy.actor, later))
    torch.testing.assert_close(own[:, 1], torch.full((9,), 1.25))
    first[:, 3:] = torch.tensor([0.9, 0.1])
    assert not torch.allclose(mean_action(policy, first), plan)  # the plan follows the preference


def test_a_plan_at_the_end_of_a_range_still_has_a_density() -> None:
    torch.manual_seed(0)
    policy, first = PlannedPolicy(EPISODES, (8,)), torch.zeros(4, 3)
    policy.planner[-1].bias.data = torch.tensor([80.0, -200.0])
    actions = sample_action(policy, first, torch.rand(4, 2))
    torch.testing.assert_close(actions, torch.tensor([[1.0, 0.5]]).expand(4, 2), atol=5e-3, rtol=0)
    assert log_prob(policy, first, actions).isfinite().all()


def test_a_preference_becomes_weights_behind_the_observation() -> None:
    policy, observations = BetaPolicy(replace(SPEC, preference_names=("psnr", "lpips"))), torch.randn(4, 3)
    nn.init.normal_(policy.head.weight)
    preferring = with_preference(policy, {"lpips": 3.0, "psnr": 1.0, "nfe": 9.0})
    expected = mean_action(policy, torch.cat([observations, torch.tensor([[0.25, 0.75]]).expand(4, 2)], -1))
    torch.testing.assert_close(mean_action(preferring, observations), expected)
    assert preferring.spec == SPEC


def test_a_fixed_action_is_not_the_policy_s_to_choose() -> None:
    policy = BetaPolicy(FIXED)
    free = BetaPolicy(EPISODES)
    free.load_state_dict(policy.state_dict())
    observations = torch.randn(6, 3)
    observations[:, 0] = torch.tensor([0.0, 0.0, 0.0, 0.05, 0.1, 0.15])
    mean, own = mean_action(policy, observations), mean_action(free, observations)
    torch.testing.assert_close(mean[:3, 0], torch.ones(3), atol=2e-4, rtol=0)
    torch.testing.assert_close(mean[3:, 1], torch.full((3,), 1.25), atol=2e-4, rtol=0)
    torch.testing.assert_close(mean[:3, 1], own[:3, 1])
    torch.testing.assert_close(mean[3:, 0], own[3:, 0])


def test_masked_features_change_nothing() -> None:
    policy, observations = BetaPolicy(SPEC), torch.randn(8, 3)
    policy.normalise.fit(observations, masked=("b",))
    other = observations.clone()
    other[:, 1] += 3
    torch.testing.assert_close(mean_action(policy, other), mean_action(policy, observations), rtol=0, atol=0)
    other[:, 0] += 3
    assert not torch.equal(mean_action(policy, other), mean_action(policy, observations))


def test_critics_see_clamped_actions() -> None:
    """A `t_ratio` beyond its limit is the one at the limit, and stops."""
    spec = replace(SPEC, action_low=(-0.25, 0.5))
    effects, unit = Effects(spec, "cpu"), to_unit(spec, torch.tensor([[-0.2, 1.0], [-0.1, 1.0], [0.1, 1.0]]))
    inputs = effects(unit)
    assert inputs.shape == (3, effects.width)
    assert torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[1], inputs[2])
    assert effects.stops(unit).tolist() == [True, True, False]
