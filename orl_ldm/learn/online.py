"""PPO on an environment that can be acted in: the offline learner's update with the anchor renewed in every iteration.

This is what PPO was made for (Schulman et al. 2017, algorithm 1), and it is here as an anchor of correctness: the same
losses, advantages and networks as offline solve a Gymnasium task as stable-baselines3's do.

Legend: T steps, E environments, N = T * E transitions, F observation features, A action dimensions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.learn import densities
from orl_ldm.learn.actor_critic import ActorCritic, Batch
from orl_ldm.learn.config import PPOConfig
from orl_ldm.learn.randomness import seed_start, seed_step, shuffle
from orl_ldm.learn.returns import gae
from orl_ldm.policy import BetaPolicy, PolicySpec
from orl_ldm.policy.beta import MARGIN, from_unit

Envs = VectorEnv[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float64]]


@dataclass
class Stage:
    """Where the environments stand between two rollouts."""

    envs: Envs
    observations: npt.NDArray[np.float32]  # (E, F)
    over: npt.NDArray[np.bool_]  # (E,) whether the next step only resets (Gymnasium's next-step autoreset)


@dataclass(frozen=True)
class Rollout:
    """What happened in T steps of E environments, in time order."""

    observations: Tensor  # (T, E, F)
    following: Tensor  # (T, E, F) what came of them
    unit: Tensor  # (T, E, A) actions in the unit interval
    rewards: Tensor  # (T, E)
    terminated: Tensor  # (T, E)
    ends: Tensor  # (T, E) terminated or truncated
    real: Tensor  # (T, E) false where a step only reset its environment


def train_online(envs: Envs, config: PPOConfig, seed: int = 42, hidden: tuple[int, ...] = (128, 128)) -> BetaPolicy:
    """Train for `config.epochs` iterations of `config.draws` steps, over all environments together; the policy.

    Rewards should be about 1 (gymnasium.wrappers.vector.NormalizeReward): `config.clip` clips values as well. Raises
    UserError when actions are not in a bounded Box, or environments reset in the step that ends an episode.
    """
    spec = spec_of(envs)
    with torch.random.fork_rng(devices=[]):
        seed_start(seed)
        policy = BetaPolicy(spec, hidden)
        networks = ActorCritic(policy, config)
        stage = Stage(envs, envs.reset(seed=seed)[0], np.zeros(envs.num_envs, dtype=np.bool_))
        for iteration in range(config.epochs):
            seed_step(seed, iteration)
            rollout = roll(stage, policy, config.draws // envs.num_envs)
            if iteration == 0:  # by the untrained policy, which is broad: from now on the scale stays
                policy.normalise.fit(rollout.observations.flatten(0, 1))
            batch = batch_of(rollout, networks, config)
            networks.learn(batch, [shuffle(seed, iteration, turn, len(batch.x)) for turn in range(config.passes)])
    return policy


def spec_of(envs: Envs) -> PolicySpec:
    """Names and bounds of what an environment shows and takes."""
    box = envs.single_action_space
    if not isinstance(box, Box) or not box.is_bounded() or len(box.shape) != 1:
        raise UserError(f"online PPO needs actions in a bounded Box of one dimension, not {box}")
    if "same" in str(envs.metadata.get("autoreset_mode")).lower():
        raise UserError("online PPO needs Gymnasium's next-step autoreset: leave autoreset_mode at its default")
    return PolicySpec(
        tuple(f"observation_{i}" for i in range(int(np.prod(envs.single_observation_space.shape or ())))),
        tuple(f"action_{i}" for i in range(box.shape[0])),
        tuple(box.low.tolist()),
        tuple(box.high.tolist()),
    )


@torch.no_grad()
def roll(stage: Stage, policy: BetaPolicy, steps: int) -> Rollout:
    """Act for T `steps`; the stage moves on."""
    rows = []
    for _ in range(steps):
        now, real = torch.from_numpy(stage.observations).float(), torch.from_numpy(~stage.over)
        unit = densities.sample(*policy.concentrations(now)).clamp(MARGIN, 1 - MARGIN)  # (E, A)
        actions = from_unit(policy.spec, unit).numpy()
        stage.observations, rewards, terminated, truncated, _ = stage.envs.step(actions)
        stage.over = np.logical_or(terminated, truncated)
        following = torch.from_numpy(stage.observations).float()
        rows.append((now, following, unit, *map(torch.from_numpy, (rewards, terminated, stage.over)), real))
    return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True)))


@torch.no_grad()
def batch_of(rollout: Rollout, networks: ActorCritic, config: PPOConfig) -> Batch:
    """Transitions with the present policy as their anchor: what PPO's update takes.

    An episode that was cut off, by its time limit or by the end of the rollout, goes on in the value of what followed;
    that value is added to its last reward.
    """
    policy = networks.policy
    ends = rollout.ends.clone()
    ends[-1] = True
    columns = (rollout.observations, rollout.following, rollout.unit, rollout.rewards, rollout.terminated, ends)
    kept = (column.transpose(0, 1)[rollout.real.T] for column in columns)  # (N, ...) episodes laid end to end
    observations, following, unit, rewards, terminated, ends = kept
    x = policy.normalise(observations)  # (N, F)
    rewards = rewards.float() + config.gamma * (ends & ~terminated) * networks.value(policy.normalise(following))
    values = networks.value(x)  # (N,)
    advantages = gae(rewards, values, ends, config.gamma, config.gae_lambda)
    log_probs = densities.log_prob(*policy.concentrations(observations), unit)
    return Batch(x, densities.logs(unit), log_probs, advantages, values, advantages + values)
