"""Offline PPO and BPPO: PPO's loss is TorchRL's, and both reach the optimum of small decision processes."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import toy_processes as toys
from tensordict import TensorDict
from tensordict.nn import InteractionType, ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from tensordict.nn import TensorDictModule as Module
from torch import nn
from torch.distributions import Beta, Independent
from torchrl.objectives import ClipPPOLoss

from orl_ldm.errors import UserError
from orl_ldm.learn import BPPOConfig, JudgeConfig, PPOConfig, TrainConfig, train
from orl_ldm.learn.bppo import BPPO
from orl_ldm.learn.networks import value_network
from orl_ldm.learn.ppo import Batch, ppo_loss
from orl_ldm.policy import BetaPolicy, PolicySpec, load_policy

SPEC = PolicySpec(("a", "b", "c"), ("go", "aim"), (0.0, 0.0), (1.0, 2.0))
ROWS = 64
#: BPPO in small: batches for problems of two features.
SMALL = BPPOConfig(fit_epochs=6, epochs=16, steps=30, batch_size=128, learning_rate=2e-3)


def trained(
    toy: toys.Toy, folder: Path, algo: str, images: int = 60, **sections: PPOConfig | BPPOConfig
) -> tuple[float, float]:
    """(mean reward of the behaviour, of the policy learned from it)."""
    behaviour = toys.collect(toy, folder / "buffer", images)
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
    assert facts["steps"] == config.algorithm.epochs * config.algorithm.steps
    return behaviour, toys.play(toy, policy)


def test_ppo_s_loss_and_its_gradient_are_those_of_torchrl() -> None:
    """In a batch in which ratios and values are clipped here and there."""
    config = PPOConfig(entropy_coefficient=0.01, value_coefficient=0.5)
    generator = torch.Generator().manual_seed(1)
    log_probs, advantages, values, returns = torch.randn(4, ROWS, generator=generator)
    observations = torch.randn(ROWS, 3, generator=generator)
    actions = torch.rand(ROWS, 2, generator=generator).clamp(1e-4, 1 - 1e-4)
    batch = Batch(observations, actions, 0.5 * log_probs, advantages, 0.3 * values, returns)
    torch.manual_seed(0)
    policy, critic = BetaPolicy(SPEC, (16, 12)), value_network(3, (16, 12))
    nn.init.normal_(policy.head.weight, std=0.5)  # away from the start, where every gradient looks alike
    ours, metrics = ppo_loss(policy, critic, batch, config)
    assert 0 < metrics["losses/clipfrac"] < 1
    parameters = [*policy.parameters(), *critic.parameters()]
    gradient = torch.autograd.grad(ours, parameters)

    actor = ProbabilisticTensorDictSequential(
        Module(policy, in_keys=["observation"], out_keys=["concentration1", "concentration0"]),
        ProbabilisticTensorDictModule(
            in_keys=["concentration1", "concentration0"],
            out_keys=["action"],
            distribution_class=lambda concentration1, concentration0: Independent(  # type: ignore[no-untyped-call]
                Beta(concentration1, concentration0), 1
            ),
            return_log_prob=True,
            default_interaction_type=InteractionType.MEAN,
        ),
    )
    loss = ClipPPOLoss(
        actor,
        Module(critic, in_keys=["observation"], out_keys=["state_value"]),
        clip_epsilon=config.clip,
        entropy_coeff=config.entropy_coefficient,
        critic_coeff=config.value_coefficient / 2,  # theirs is the squared error, ours half of it
        loss_critic_type="l2",
        normalize_advantage=False,
        clip_value=config.clip,
    )
    normalised = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    columns = {"action_log_prob": batch.log_probs, "advantage": normalised[:, None], "action": actions}
    columns |= {"observation": observations, "state_value": batch.values[:, None], "value_target": returns[:, None]}
    losses = loss(TensorDict(columns, batch_size=[ROWS]))
    theirs = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    theirs.backward()
    of_theirs = [parameter.grad for parameter in loss.parameters() if parameter.grad is not None]
    norms = (torch.cat([part.flatten() for part in parts]).norm() for parts in (gradient, of_theirs))
    torch.testing.assert_close(*norms, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("advantage", ["gae", "vtrace"])
def test_ppo_reaches_the_optimum(tmp_path: Path, advantage: Literal["gae", "vtrace"]) -> None:
    config = PPOConfig(epochs=20, learning_rate=2e-3, batch_size=128, advantage=advantage)
    behaviour, learned = trained(toys.Doors(), tmp_path, "ppo", ppo=config)
    assert behaviour < 0.4
    assert learned > 0.95  # the optimum is 1


def test_ppo_stays_near_a_broad_behaviour(tmp_path: Path) -> None:
    """The limit of the paper's method: where later decisions have to be good, it takes the certain little."""
    config = PPOConfig(epochs=15, learning_rate=2e-3, batch_size=128)
    _, learned = trained(toys.Patience(), tmp_path, "ppo", ppo=config)
    assert learned == pytest.approx(0.3, abs=0.05)


def test_bppo_reaches_the_optimum(tmp_path: Path) -> None:
    behaviour, learned = trained(toys.Doors(), tmp_path, "bppo", bppo=SMALL)
    assert behaviour < 0.4
    assert learned > 0.9  # the optimum is 1


def test_bppo_keeps_the_old_policy_unless_the_candidate_scores_higher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a score that never rises the policy stays the clone of the behaviour."""
    toy, short = toys.Doors(), replace(SMALL, fit_epochs=2, epochs=2, steps=10)
    cloned = trained(toy, tmp_path / "cloned", "bppo", 20, bppo=short)
    monkeypatch.setattr(BPPO, "score", lambda self, policy: torch.ones(len(self.data.starts)))
    assert trained(toy, tmp_path / "kept", "bppo", 20, bppo=replace(short, epochs=3)) == cloned


@pytest.mark.parametrize("algo", ["ppo", "bppo", "d3rlpy-iql"])
def test_fixed_actions_and_preferences_are_refused_by_name(tmp_path: Path, algo: str) -> None:
    toys.collect(toys.Patience(), tmp_path / "buffer", images=4)
    config = TrainConfig((str(tmp_path / "buffer"),), str(tmp_path / "run"), algo)
    with pytest.raises(UserError, match=f'"{algo}" does not support train.fixed_actions; remove it, or choose'):
        train(replace(config, fixed_actions={"aim": 0.5}), progress=False)
    with pytest.raises(UserError, match=f'"{algo}" does not support train.preference_conditioned'):
        train(replace(config, preference_conditioned=True), progress=False)
