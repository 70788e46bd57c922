"""Returns and advantages are those of the textbook, of stable-baselines3 and of TorchRL."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor
from torchrl.objectives.value.functional import generalized_advantage_estimate, vtrace_advantage_estimate

from orl_ldm.learn.returns import discounted_returns, gae, next_values, vtrace

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def laid_out(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(rewards, values, ends) of episodes of these lengths, float64."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    ends = torch.zeros(n, dtype=torch.bool)
    ends[torch.tensor(lengths).cumsum(0) - 1] = True
    return torch.randn(n, generator=generator).double(), torch.randn(n, generator=generator).double(), ends


def naive_gae(rewards: Tensor, values: Tensor, ends: Tensor, gamma: float, lam: float) -> list[float]:
    advantages = [0.0] * len(rewards)
    running = 0.0
    for t in reversed(range(len(rewards))):
        follows = 0.0 if ends[t] else float(values[t + 1])
        residual = float(rewards[t]) + gamma * follows - float(values[t])
        running = residual + (0.0 if ends[t] else gamma * lam * running)
        advantages[t] = running
    return advantages


@given(lengths=LENGTHS, gamma=st.sampled_from([1.0, 0.99, 0.5]), lam=st.sampled_from([0.0, 0.95, 1.0]))
@settings(max_examples=50, deadline=None)
def test_gae_is_the_backward_loop(lengths: list[int], gamma: float, lam: float) -> None:
    rewards, values, ends = laid_out(lengths)
    expected = naive_gae(rewards, values, ends, gamma, lam)
    assert gae(rewards, values, ends, gamma, lam).tolist() == pytest.approx(expected, abs=1e-12)


@given(lengths=LENGTHS)
@settings(max_examples=20, deadline=None)
def test_returns_are_sums_to_the_end_of_the_episode(lengths: list[int]) -> None:
    rewards, _, ends = laid_out(lengths)
    parts = [part.flip(0).cumsum(0).flip(0) for part in torch.split(rewards, lengths)]
    assert discounted_returns(rewards, ends, 1.0).tolist() == pytest.approx(torch.cat(parts).tolist())


def test_gae_is_that_of_stable_baselines3() -> None:
    rewards, values, ends = laid_out([3, 1, 5, 2])
    n = len(rewards)
    buffer = RolloutBuffer(n, spaces.Box(0, 1, (1,)), spaces.Box(0, 1, (1,)), gamma=0.99, gae_lambda=0.95)
    start = np.ones(1)
    for reward, value, end in zip(rewards, values, ends, strict=True):
        none = np.zeros((1, 1))
        buffer.add(none, none, reward.numpy()[None], start, value.float()[None], torch.zeros(1))
        start = np.array([float(end)])
    buffer.compute_returns_and_advantage(torch.zeros(1), start)
    ours = gae(rewards, values, ends, 0.99, 0.95)
    np.testing.assert_allclose(ours.numpy(), buffer.advantages[:, 0], rtol=1e-5, atol=1e-6)


def test_gae_is_that_of_torchrl() -> None:
    rewards, values, ends = laid_out([3, 1, 5, 2, 6])
    columns = (next_values(values, ends), rewards, ends)
    expected, targets = generalized_advantage_estimate(0.99, 0.95, values[:, None], *(c[:, None] for c in columns))
    ours = gae(rewards, values, ends, 0.99, 0.95)
    torch.testing.assert_close(ours, expected[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(ours + values, targets[:, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (2.0, 0.5), (1e9, 1e9)])
def test_vtrace_is_that_of_torchrl(rho_bar: float, c_bar: float) -> None:
    rewards, values, ends = laid_out([3, 1, 5, 2, 6])
    policy, behaviour = 0.7 * torch.randn(2, len(rewards), generator=torch.Generator().manual_seed(1)).double()
    columns = (policy, behaviour, values, next_values(values, ends), rewards, ends)
    expected, targets = vtrace_advantage_estimate(
        0.99, *(column[:, None] for column in columns), rho_thresh=rho_bar, c_thresh=c_bar
    )
    advantages, ours = vtrace(rewards, values, policy - behaviour, ends, 0.99, rho_bar, c_bar)
    torch.testing.assert_close(ours, targets[:, 0], atol=1e-6, rtol=0)
    rho = (policy - behaviour).exp().clamp(max=rho_bar)  # which theirs has in front, and PPO puts there by itself
    torch.testing.assert_close(rho * advantages, expected[:, 0], atol=1e-6, rtol=0)


def test_vtrace_of_the_policy_s_own_actions_is_gae_with_lambda_one() -> None:
    rewards, values, ends = laid_out([3, 1, 5])
    _, targets = vtrace(rewards, values, torch.zeros_like(rewards), ends, 0.9)
    torch.testing.assert_close(targets, gae(rewards, values, ends, 0.9, 1.0) + values)
