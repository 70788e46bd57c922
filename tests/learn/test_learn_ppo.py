"""The paper's offline PPO, and BPPO: what they reach on small decision processes whose optimum is known."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import toy_processes as toys

from orl_ldm.errors import UserError
from orl_ldm.learn import BPPOConfig, JudgeConfig, PPOConfig, TrainConfig, train
from orl_ldm.learn.bppo import BPPO
from orl_ldm.policy import load_policy

#: BPPO in small: batches for problems of two features.
SMALL = BPPOConfig(fit_epochs=10, epochs=25, steps=40, batch_size=128, learning_rate=1e-3)


def trained(
    toy: toys.Toy, folder: Path, algo: Literal["ppo", "bppo"], **sections: PPOConfig | BPPOConfig
) -> tuple[float, float]:
    """(mean reward of the behaviour, of the policy learned from it)."""
    behaviour = toys.collect(toy, folder / "buffer")
    config = TrainConfig(
        (str(folder / "buffer"),),
        str(folder / "run"),
        algo,
        weights=toys.WEIGHTS,
        hidden=(32, 32),
        judge=JudgeConfig(held_out=0),  # the algorithm by itself, on all images
        **sections,  # type: ignore[arg-type]
    )
    policy, facts = load_policy(train(config, progress=False))
    section = config.algorithm
    updates = section.passes * 16 if isinstance(section, PPOConfig) else section.steps
    assert facts["steps"] == section.epochs * updates
    return behaviour, toys.play(toy, policy)


@pytest.mark.parametrize("advantage", ["gae", "vtrace"])
def test_ppo_reaches_the_optimum(tmp_path: Path, advantage: Literal["gae", "vtrace"]) -> None:
    behaviour, learned = trained(toys.Doors(), tmp_path, "ppo", ppo=PPOConfig(epochs=40, advantage=advantage))
    assert behaviour < 0.4
    assert learned > 0.97  # the optimum is 1


def test_bppo_reaches_the_optimum(tmp_path: Path) -> None:
    behaviour, learned = trained(toys.Doors(), tmp_path, "bppo", bppo=SMALL)
    assert behaviour < 0.4
    assert learned > 0.93  # the optimum is 1


def test_ppo_stays_near_a_broad_behaviour(tmp_path: Path) -> None:
    """What the paper's method lacks: where later decisions have to be good, it takes the certain little."""
    _, learned = trained(toys.Patience(), tmp_path, "ppo", ppo=PPOConfig(epochs=30))
    assert learned == pytest.approx(0.3, abs=0.05)


def test_bppo_sees_later_steps_when_q_is_the_policy_s(tmp_path: Path) -> None:
    """Going on pays only to who aims well later: SARSA's Q, which is of random aim, would stop for 0.3."""
    _, learned = trained(toys.Patience(), tmp_path, "bppo", bppo=replace(SMALL, off_policy=True, epochs=45))
    assert learned > 0.8  # the optimum is 1


def test_bppo_keeps_the_old_policy_until_the_score_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a score that never rises the policy stays the clone of the behaviour."""
    toy = toys.Doors()
    cloned = trained(toy, tmp_path / "cloned", "bppo", bppo=replace(SMALL, epochs=10))
    monkeypatch.setattr(BPPO, "score", lambda self, policy: 1e9)
    assert trained(toy, tmp_path / "kept", "bppo", bppo=replace(SMALL, epochs=12)) == cloned


def test_held_actions_do_not_go_with_ppo(tmp_path: Path) -> None:
    toys.collect(toys.Patience(), tmp_path / "buffer", images=4)
    config = TrainConfig((str(tmp_path / "buffer"),), str(tmp_path / "run"), "ppo", hold={"aim": 0.5})
    with pytest.raises(UserError, match=r"train.hold does not go with train.algo=ppo"):
        train(config, progress=False)
