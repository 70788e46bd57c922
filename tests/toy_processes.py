"""Small decision processes whose optimum is known, written as real buffers.

Legend: E episodes, F observation features, A action dimensions. An image is its character c in [-1, 1].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from orl_ldm.buffer import BufferWriter, Header, ImageRef
from orl_ldm.policy import BroadPolicy, Policy, PolicySpec
from orl_ldm.policy.beta import log_prob, mean_action, sample_action
from orl_ldm.reward import PSNR_SCALE, TERMS, as_weights

Floats = npt.NDArray[np.float32]

#: Only the PSNR term counts, and the toys write 40 times their reward into it.
WEIGHTS = as_weights({"psnr": 1.0})


class Toy(Protocol):
    """A decision process over many episodes at once."""

    @property
    def spec(self) -> PolicySpec: ...

    @property
    def horizon(self) -> int: ...

    def observe(self, character: Floats, step: int) -> Floats:
        """(E, F)"""
        ...

    def act(self, character: Floats, step: int, actions: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """(reward, whether the episode ends), each (E,)."""
        ...


def target(character: Floats) -> Floats:
    """(E,) the action that suits an image, in [0.2, 0.8]."""
    return np.asarray(0.5 + 0.3 * np.sin(2.5 * character), dtype=np.float32)


@dataclass(frozen=True)
class Aim:
    """One decision: the reward is 1 - 4 (action - target)^2, so that the optimum is 1 and blind play gets less."""

    spec: PolicySpec = PolicySpec(("character", "noise"), ("aim",), (0.0,), (2.0,))
    horizon: int = 1

    def observe(self, character: Floats, step: int) -> Floats:
        return np.stack([character, np.cos(50 * character)], axis=1).astype(np.float32)

    def act(self, character: Floats, step: int, actions: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        miss = actions[:, 0] / 2 - target(character)  # (E,)
        return np.asarray(1 - 4 * miss**2, dtype=np.float32), np.ones(len(character), dtype=np.bool_)


@dataclass(frozen=True)
class Patience:
    """Stop at once for 0.3, or go on to a second decision that pays 1 - 10 (aim - target)^2.

    Going on pays 1 with a good aim, and about -0.3 with a random one: a learner that values the first decision by what
    the behaviour did afterwards stops.
    """

    spec: PolicySpec = PolicySpec(("position/decision", "character"), ("go", "aim"), (0.0, 0.0), (1.0, 1.0))
    horizon: int = 2

    def observe(self, character: Floats, step: int) -> Floats:
        return np.stack([np.full_like(character, step), character], axis=1)

    def act(self, character: Floats, step: int, actions: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        last = step == self.horizon - 1
        if last:
            miss = actions[:, 1] - target(character)  # (E,)
            return np.asarray(1 - 10 * miss**2, dtype=np.float32), np.ones(len(character), dtype=np.bool_)
        return np.full_like(character, 0.3), actions[:, 0] < 0.6


@dataclass(frozen=True)
class Stops(Patience):
    """Patience with the sampler's actions: a `t_ratio` of 0 or less stops, and going on twice pays -0.5.

    So a learner has to know what stopping pays in either decision.
    """

    spec: PolicySpec = PolicySpec(("position/decision", "character"), ("t_ratio", "aim"), (-1.5, 0.0), (1.0, 1.0))
    horizon: int = 3

    def act(self, character: Floats, step: int, actions: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        miss = actions[:, 1] - target(character)  # (E,)
        pays = np.full_like(character, 0.3) if step == 0 else 1 - 10 * miss**2
        last = np.full(len(character), step == self.horizon - 1)
        return np.where(last, -0.5, pays).astype(np.float32), (actions[:, 0] <= 0) | last


@dataclass(frozen=True)
class Doors:
    """Three doors in a row, each left or right of the middle; on which side depends on the image.

    The reward is the fraction of doors that were found: the optimum is 1, and guessing gets 0.29.
    """

    spec: PolicySpec = PolicySpec(("position/decision", "character"), ("door",), (0.0,), (1.0,))
    horizon: int = 3

    def observe(self, character: Floats, step: int) -> Floats:
        return np.stack([np.full_like(character, step), character], axis=1)

    def act(self, character: Floats, step: int, actions: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        found = (actions[:, 0] > 0.5) == (character > 0)
        last = step == self.horizon - 1
        return np.asarray((step + found) / self.horizon, np.float32), ~found | last


@dataclass(frozen=True)
class Tradeoff:
    """One decision; PSNR is best at an action of 0.2 and SSIM at 0.8, so the optimum depends on the weights."""

    spec: PolicySpec = PolicySpec(("position/decision", "character"), ("aim",), (0.0,), (1.0,))
    horizon: int = 1

    def observe(self, character: Floats, step: int) -> Floats:
        return np.stack([np.full_like(character, step), character], axis=1)

    def act(self, character: Floats, step: int, actions: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
        return np.asarray(1 - 4 * (actions[:, 0] - 0.2) ** 2, np.float32), np.ones(len(character), dtype=np.bool_)

    def second(self, actions: Floats) -> Floats:
        """(E,) SSIM."""
        return np.asarray(1 - 4 * (actions[:, 0] - 0.8) ** 2, np.float32)


def mean_of(toy: Toy, policy: Policy) -> float:
    """The first action that the policy's mean takes, on average."""
    observations = toy.observe(np.linspace(-1, 1, 100, dtype=np.float32), 0)
    with torch.no_grad():
        return float(mean_action(policy, torch.from_numpy(observations)).mean())


FRESH = np.linspace(-1, 1, 500, dtype=np.float32)


def play(toy: Toy, policy: Policy, character: Floats = FRESH) -> float:
    """Mean reward of the policy's mean action on images of these characters."""
    reward, running = np.zeros(len(character), dtype=np.float32), np.ones(len(character), dtype=np.bool_)
    for step in range(toy.horizon):
        with torch.no_grad():
            actions = mean_action(policy, torch.from_numpy(toy.observe(character, step))).numpy()
        now, ends = toy.act(character, step, actions)
        reward[running & ends] = now[running & ends]
        running &= ~ends
    return float(reward.mean())


def collect(toy: Toy, folder: Path | str, images: int = 100, rollouts: int = 8, seed: int = 0) -> float:
    """Write a buffer of uniformly random play with images of unlike difficulty; returns the behaviour's mean reward."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rollouts)
    character = rng.uniform(-1, 1, images).astype(np.float32)[image]  # (E,)
    difficulty = rng.normal(0, 3, images).astype(np.float32)[image]  # far more than what actions can change
    ones = (1.0,) * len(toy.spec.action_names)
    behaviour = BroadPolicy(toy.spec, ones, ones)
    rows: list[dict[str, npt.NDArray[np.generic]]] = []
    running = np.ones(len(image), dtype=np.bool_)
    rewards = np.zeros(len(image), dtype=np.float32)
    for step in range(toy.horizon):
        observations = torch.from_numpy(toy.observe(character, step))
        uniforms = torch.from_numpy(rng.uniform(size=(len(image), len(ones))))
        actions = sample_action(behaviour, observations, uniforms)
        reward, ends = toy.act(character, step, actions.numpy())
        rewards = np.where(running & ends, reward, rewards)
        terms = np.zeros((len(image), len(TERMS)), dtype=np.float32)
        terms[:, 0] = np.where(ends, PSNR_SCALE * (reward + difficulty), 0)
        if isinstance(toy, Tradeoff):
            terms[:, 1] = toy.second(actions.numpy())
        columns = {
            "observations": observations.numpy(),
            "actions": actions.numpy(),
            "log_probs": log_prob(behaviour, observations, actions).numpy(),
            "terminals": ends,
            "terms": terms,
            "episode_id": np.arange(len(image)),
            "image_id": image,
            "step": np.full(len(image), step),
        }
        rows.append({name: column[running] for name, column in columns.items()})
        running &= ~ends
    table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    order = np.lexsort((table.pop("step"), table["episode_id"]))
    references = [ImageRef(i, f"image_{i}.png", "forest") for i in range(images)]
    BufferWriter(folder, header(toy)).write("all", {k: v[order] for k, v in table.items()}, references)
    return float(rewards.mean())


def header(toy: Toy) -> Header:
    return Header(
        feature_names=toy.spec.feature_names,
        action_names=toy.spec.action_names,
        action_low=toy.spec.action_low,
        action_high=toy.spec.action_high,
        term_names=tuple(TERMS),
        nfe_max=20,
        pipeline_digest="a" * 64,
        ldm_id="toy",
        ldm_digest="b" * 64,
        behavior_id="uniform",
        seed=0,
        packages={},
    )
