"""PPO where it can act: it learns a control task of Gymnasium, and says what it cannot use."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import NormalizeReward

from orl_ldm.errors import UserError
from orl_ldm.learn import PPOConfig
from orl_ldm.learn.online import train_online
from orl_ldm.policy import BetaPolicy
from orl_ldm.policy.beta import mean_action

#: One limit holds for the gradients of both networks together: so that the policy gets its share, values weigh less.
SHORT = PPOConfig(learning_rate=1e-3, gamma=0.9, value_coefficient=0.2, epochs=30, draws=1000, passes=10)


def returns(policy: BetaPolicy, episodes: int = 20) -> float:
    """Mean return of the policy's mean action on Pendulum, whose episodes all take 200 steps."""
    envs = gym.make_vec("Pendulum-v1", episodes, vectorization_mode="sync")
    observations, _ = envs.reset(seed=1000)
    total = np.zeros(episodes)
    for _ in range(200):
        with torch.no_grad():
            actions = mean_action(policy, torch.from_numpy(observations)).numpy()
        observations, rewards, *_ = envs.step(actions)
        total += rewards
    return float(total.mean())


def pendulum() -> NormalizeReward:
    return NormalizeReward(gym.make_vec("Pendulum-v1", 10, vectorization_mode="sync"), gamma=SHORT.gamma)


def test_a_pendulum_is_swung_up() -> None:
    """30,000 steps; an untrained policy gets about -1200, stable-baselines3 after 100,000 about -200."""
    policy = train_online(pendulum(), SHORT, seed=0, hidden=(64, 64))
    assert returns(BetaPolicy(policy.spec, (64, 64))) < -1000
    assert returns(policy) > -500


def test_the_same_seed_gives_the_same_policy() -> None:
    tiny = PPOConfig(epochs=2, draws=100, passes=2)
    one, same, other = (train_online(pendulum(), tiny, seed, hidden=(8,)).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_environments_without_bounded_actions_are_refused() -> None:
    with pytest.raises(UserError, match="needs actions in a bounded Box"):
        train_online(gym.make_vec("CartPole-v1", 2), SHORT)
