"""The paper's offline PPO, and BPPO: what they reach on small decision processes whose optimum is known."""

from pathlib import Path

import pytest
import toy_processes as toys

from orl_ldm.learn import BPPOConfig, PPOConfig, TrainConfig, train
from orl_ldm.policy import load_policy


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
