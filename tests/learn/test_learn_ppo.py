"""The offline PPO: its losses are stable-baselines3's, and it improves on a broad behaviour."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import toy_processes as toys
from torch.distributions import Beta, kl_divergence

from orl_ldm.learn import PPOConfig, TrainConfig, densities, train
from orl_ldm.learn.actor_critic import policy_loss, value_loss
from orl_ldm.policy import load_policy


def test_densities_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (1 + 3 * torch.rand(64, 3, generator=generator) for _ in range(4))
    unit = torch.rand(64, 3, generator=generator).clamp(1e-4, 1 - 1e-4)
    one, other = Beta(a, b), Beta(c, d)
    torch.testing.assert_close(densities.log_prob(a, b, unit), one.log_prob(unit).sum(-1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(densities.entropy(a, b), one.entropy().sum(-1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(densities.kl(a, b, c, d), kl_divergence(one, other).sum(-1), atol=1e-5, rtol=1e-4)


def test_losses_are_those_of_stable_baselines3() -> None:
    """The formulas of stable_baselines3.ppo.PPO.train (2.4), on the same tensors."""
    generator = torch.Generator().manual_seed(1)
    log_prob, old_log_prob, advantages, values, old_values, returns = torch.randn(6, 64, generator=generator)
    clip_range = clip_range_vf = 0.2

    ratio = torch.exp(log_prob - old_log_prob)
    policy_loss_1 = advantages * ratio
    policy_loss_2 = advantages * torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    expected = -torch.min(policy_loss_1, policy_loss_2).mean()
    torch.testing.assert_close(policy_loss(log_prob - old_log_prob, advantages, 0.2), expected)

    # where no value was clipped, SB3's loss is the plain squared error; ours is half of it, as in CleanRL
    near = old_values + torch.clamp(values - old_values, -clip_range_vf, clip_range_vf)
    torch.testing.assert_close(2 * value_loss(near, old_values, returns, 0.2), F.mse_loss(returns, near))
    assert value_loss(values, old_values, returns, 0.2) >= value_loss(values, old_values, returns, 1e9)


def test_ppo_improves_on_the_behaviour(tmp_path: Path) -> None:
    toy = toys.Aim()
    behaviour = toys.collect(toy, tmp_path / "buffer")
    config = TrainConfig(
        (str(tmp_path / "buffer"),), str(tmp_path / "run"), "ppo", weights=toys.WEIGHTS, ppo=PPOConfig(epochs=25)
    )
    policy, facts = load_policy(train(config, progress=False))
    assert toys.play(toy, policy) > behaviour + 0.25
    assert facts["steps"] == 25 * 4 * 16
    assert facts["estimated_reward"] > facts["behavior_reward"] + 0.05


def test_ppo_stays_near_a_broad_behaviour(tmp_path: Path) -> None:
    """What the paper's method lacks: where later decisions have to be good, it takes the certain little."""
    toy = toys.Patience()
    toys.collect(toy, tmp_path / "buffer")
    config = TrainConfig(
        (str(tmp_path / "buffer"),), str(tmp_path / "run"), "ppo", weights=toys.WEIGHTS, ppo=PPOConfig(epochs=30)
    )
    policy, _ = load_policy(train(config, progress=False))
    assert toys.play(toy, policy) == pytest.approx(0.3, abs=0.05)
