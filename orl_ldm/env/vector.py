"""The decision process as Gymnasium environments: a vector environment, and one of it as a plain Env.

Legend: B environments, F features, A actions. An episode is one rollout of one image; the reward comes at its end.
"""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.sampler import State, advance, ends, finish, start
from orl_ldm.env.features import observe
from orl_ldm.env.spaces import decide, spec
from orl_ldm.errors import UserError
from orl_ldm.images.pairs import Batch
from orl_ldm.metrics import Metrics, episode_terms
from orl_ldm.reward import SETTINGS, Weights, compose
from orl_ldm.streams import stable_id

Floats = npt.NDArray[np.float32]
Step = tuple[Floats, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]


class SteeringVectorEnv(VectorEnv[Any, Any, Any]):
    """`num_envs` images in flight; a step is one decision for each of them.

    Observations float32 (B, F) named by `spec().feature_names`; actions float32 (B, A) within its bounds; the reward is
    0 until the episode's last step. Episodes terminate (they are never truncated: the NFE budget is part of the
    process). An environment that has ended is reset by its next step, whose action is ignored and whose reward is 0
    (Gymnasium's next-step autoreset). `infos["terms"]` holds the raw reward terms (B, T) of the episodes that ended.
    """

    def __init__(
        self,
        ldm: LDM,
        images: Batch,
        metrics: Metrics,
        num_envs: int = 1,
        weights: Weights = SETTINGS["paper"],
        config: SamplerConfig = SamplerConfig(),
    ) -> None:
        autoreset = getattr(gym.vector, "AutoresetMode", None)
        self.metadata = {"autoreset_mode": autoreset.NEXT_STEP if autoreset else "next-step"}
        self.num_envs = num_envs
        self.ldm, self.images, self.metrics, self.weights, self.config = ldm, images, metrics, weights, config
        names = spec()
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (len(names.feature_names),), np.float32)
        low, high = np.array(names.action_low, np.float32), np.array(names.action_high, np.float32)
        self.single_action_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: State | None = None
        self._ended = np.ones(num_envs, dtype=bool)
        self._episodes = 0
        self._noise_seed = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Start every environment on its next image; returns (observations, {}).

        A seed, an integer or one for each environment, also goes back to the first image; without one the episodes go
        on. No options are known. Raises UserError for a seed that is none.
        """
        if seed is not None:
            self._noise_seed, self._episodes = as_seed(seed, self.num_envs), 0
            super().reset(seed=self._noise_seed)
        self._state = None
        self._restart(np.ones(self.num_envs, dtype=bool))
        return self._observations(), {}

    @torch.no_grad()
    def step(self, actions: Floats) -> Step:
        """One decision for each environment. Raises UserError for actions of another shape, or not finite."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        actions = np.asarray(actions, dtype=np.float32)
        if actions.shape != self.action_space.shape or not np.isfinite(actions).all():
            raise UserError(f"actions must be finite and of shape {self.action_space.shape}; they are {actions}")
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=bool)
        infos: dict[str, Any] = {}
        resetting = self._ended.copy()
        decision = decide(self._state, torch.as_tensor(actions, device=self.ldm.device))
        done = ends(self._state, decision, self.config) & ~torch.as_tensor(resetting, device=self.ldm.device)
        going = ~done & ~torch.as_tensor(resetting, device=self.ldm.device)
        if done.any():
            finished = self._state.select(done)
            terms = self._terms(finished, finish(self.ldm, finished, decision.select(done), self._noise_seed))
            terminated = done.cpu().numpy()
            rewards[terminated] = compose(terms, self.weights, self.config.nfe_max)
            infos["terms"] = np.zeros((self.num_envs, terms.shape[1]))
            infos["terms"][terminated] = terms
            infos["_terms"] = terminated
        if going.any():
            moving = self._state.select(going), decision.select(going)
            moved = advance(self.ldm, *moving, self.config, self._noise_seed, with_features=True)
            self._state = self._state.put(going, moved)
        if resetting.any():
            self._restart(resetting)
        self._ended = terminated
        return self._observations(), rewards, terminated, np.zeros_like(terminated), infos

    def _restart(self, which: npt.NDArray[np.bool_]) -> None:
        """Begin the next images of the list, in turn, in the environments of `which`."""
        count = int(which.sum())
        numbers = np.arange(self._episodes, self._episodes + count)
        self._episodes += count
        chosen, rollouts = numbers % len(self.images.refs), numbers // len(self.images.refs)
        ids = [self.images.refs[i].image_id for i in chosen]
        fresh = start(self.ldm, self.images.lr[torch.as_tensor(chosen)], ids, rollouts.tolist())
        index = torch.as_tensor(chosen, device=self.ldm.device)
        fresh = replace(fresh, slot=index)
        mask = torch.as_tensor(which, device=self.ldm.device)
        self._state = fresh if self._state is None else self._state.put(mask, fresh)
        self._ended = np.where(which, False, self._ended)

    def _terms(self, finished: State, output: Tensor) -> npt.NDArray[np.float64]:
        """Raw reward terms (n, T) of finished episodes; seconds are not measured here."""
        quality = self.metrics(output, self.images.hr[finished.slot.cpu()].to(output.device))
        return episode_terms(quality, finished.nfe.cpu().numpy(), 0.0)

    def _observations(self) -> Floats:
        assert self._state is not None
        return np.asarray(observe(self._state, self.ldm.schedule, self.config).cpu().numpy())


def as_seed(seed: Any, count: int) -> int:
    """A non-negative integer, of one or of one for each of `count` environments. Raises UserError for anything else."""
    numbers = [seed] if isinstance(seed, Integral) else list(seed) if isinstance(seed, Sequence | np.ndarray) else []
    if len(numbers) not in (1, count) or not all(
        n is None or (isinstance(n, Integral) and int(n) >= 0) for n in numbers
    ):
        raise UserError(f"seed is {seed!r}; give an integer from 0 on, or one for each of the {count} environments")
    whole = [0 if n is None else int(n) for n in numbers]
    return whole[0] if len(whole) == 1 else stable_id(str(whole)) & 0x7FFFFFFF


class SteeringEnv(gym.Env[Floats, Floats]):
    """One image at a time, for libraries that take a plain Gymnasium Env."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        ldm: LDM,
        images: Batch,
        metrics: Metrics,
        weights: Weights = SETTINGS["paper"],
        config: SamplerConfig = SamplerConfig(),
    ) -> None:
        self._vector = SteeringVectorEnv(ldm, images, metrics, 1, weights, config)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Start the next image."""
        seed = None if seed is None else as_seed(seed, 1)
        super().reset(seed=seed)
        observations, _ = self._vector.reset(seed=seed)
        return observations[0], {}

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """One decision."""
        observations, rewards, terminated, truncated, infos = self._vector.step(np.asarray(action)[None])
        info = {"terms": infos["terms"][0]} if terminated[0] else {}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info
