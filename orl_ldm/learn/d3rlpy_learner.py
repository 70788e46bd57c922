"""d3rlpy's offline algorithms (Seno and Imai 2022) on the same buffer: same rewards, normalisation and draws.

Legend: B batch, N transitions, F observation features, A action dimensions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from orl_ldm.config import STRICT
from orl_ldm.errors import UserError
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.learner import Metrics, Parts, refuse
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.policy import SquashedPolicy

#: `train.algo` is d3rlpy-NAME -> the name of its configuration in d3rlpy.
NAMES = {"bc": "BCConfig", "awac": "AWACConfig", "td3plusbc": "TD3PlusBCConfig", "iql": "IQLConfig", "cql": "CQLConfig"}


@dataclass(frozen=True)
class D3rlpyConfig:
    """d3rlpy's algorithms; settings that are not here have d3rlpy's own defaults.

    Observations are normalised, unit actions are stretched to d3rlpy's [-1, 1], and the end of an episode is a
    terminal. Every algorithm here has an actor of one shape, an MLP with ReLU behind tanh. Its weights are copied into
    a `SquashedPolicy`, whose mean is d3rlpy's prediction; steering with it does not need d3rlpy.
    """

    __pydantic_config__ = STRICT

    gamma: float = 1.0
    epochs: PositiveInt = 40
    steps: PositiveInt = 100  # gradient steps of an epoch
    batch_size: PositiveInt = 256

    def create(self, data: Dataset, run: RunConfig) -> "D3rlpy":
        """A new learner. Raises UserError without d3rlpy, and for settings that its algorithms do not support."""
        refuse(run, "preference_conditioned", "mask_features", "fixed_actions", "fixed_first_actions")
        try:
            import d3rlpy
        except ImportError:
            raise UserError(f"train.algo = {run.algo!r} needs the extra: pip install 'orl-ldm[d3rlpy]'") from None
        name = run.algo.removeprefix("d3rlpy-")
        settings: dict[str, Any] = {"batch_size": self.batch_size}
        if name != "bc":
            settings["gamma"] = self.gamma
        device = data.observations.device
        place = "cpu:0" if device.type == "cpu" else f"{device.type}:{device.index or 0}"
        algorithm = getattr(d3rlpy.algos, NAMES[name])(**settings).create(device=place)
        algorithm.create_impl((data.observations.shape[1],), data.actions.shape[1])
        return D3rlpy(self, data, run, algorithm, "imitator" if name == "bc" else "policy")


class D3rlpy:
    """State of a run. `actor` is the name of the actor among the modules of d3rlpy's algorithm."""

    def __init__(self, config: D3rlpyConfig, data: Dataset, run: RunConfig, algorithm: Any, actor: str) -> None:
        self.data, self.config, self.seed, self.algorithm = data, config, run.seed, algorithm
        modules = dict(vars(algorithm.impl.modules))
        self.actor = modules[actor]
        self.policy = SquashedPolicy(data.spec, [layer.out_features for layer in linear(self.actor._encoder)])
        self.policy.to(data.observations.device)
        self.policy.normalise.fit(data.observations)
        self.arrays = batches(data, self.policy)
        self.parts: Parts = {"actor_for_steering": self.policy}
        for part, value in modules.items():
            if isinstance(value, nn.Module):
                self.parts[part] = value
            elif value is not None:
                self.parts[part] = value.optim
        copy_weights(self.actor, self.policy)

    def epoch(self, index: int) -> Metrics:
        """`steps` updates of d3rlpy's own; everything random is a function of seed and step."""
        from d3rlpy.dataset import TransitionMiniBatch

        sums: dict[str, float] = {}
        for step in range(index * self.config.steps, (index + 1) * self.config.steps):
            seed_step(self.seed, step)
            rows = draw(self.seed, step, len(self.data), self.config.batch_size).numpy()
            self.algorithm._grad_step = step  # counted by delayed actor updates; a resumed run would start from 0
            batch = TransitionMiniBatch(**{name: array[rows] for name, array in self.arrays.items()}, transitions=[])
            for name, loss in self.algorithm.update(batch).items():
                sums[name] = sums.get(name, 0.0) + float(loss)
        copy_weights(self.actor, self.policy)
        return {f"losses/{name}": total / self.config.steps for name, total in sums.items()}

    def values(self) -> None:
        """d3rlpy's value functions differ from algorithm to algorithm."""
        return


def batches(data: Dataset, policy: SquashedPolicy) -> dict[str, npt.NDArray[np.float32]]:
    """The columns of d3rlpy's TransitionMiniBatch, each float32 (N, .)."""
    following = torch.where(data.ends[:, None], 0.0, data.actions.roll(-1, 0))  # (N, A)
    columns: dict[str, Tensor] = {
        "observations": policy.normalise(data.observations),
        "actions": 2 * data.actions - 1,
        "rewards": data.rewards[:, None],
        "next_observations": policy.normalise(data.next_observations),
        "next_actions": 2 * following - 1,
        "terminals": data.ends[:, None],
        "intervals": torch.ones(len(data), 1),
    }
    return {name: column.cpu().numpy().astype(np.float32) for name, column in columns.items()}


def linear(module: nn.Module) -> list[nn.Linear]:
    """The linear layers of an encoder, in order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def copy_weights(actor: Any, policy: SquashedPolicy) -> None:
    """Copy a deterministic or Gaussian actor of d3rlpy, whose mean is tanh of its last layer, into a policy."""
    head = actor._fc if hasattr(actor, "_fc") else actor._mu
    theirs = [*linear(actor._encoder), head]
    for mine, layer in zip([*linear(policy.body), policy.head], theirs, strict=True):
        mine.weight.copy_(layer.weight)
        mine.bias.copy_(layer.bias)
