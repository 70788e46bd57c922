"""d3rlpy's offline algorithms (Seno and Imai 2022) on the same buffer: same rewards, same normalisation, same draws.

Observations are normalised, unit actions are stretched to d3rlpy's [-1, 1], and an end is a terminal. Every algorithm
here has an actor of one shape, an MLP with ReLU behind tanh, so its weights move into a `SquashedPolicy` and the
policy's mean is what d3rlpy predicts; nothing of d3rlpy is needed to steer with it.

Legend: B batch, N transitions, F observation features, A action dimensions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orl_ldm.errors import UserError
from orl_ldm.learn.config import TrainConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.importance import log_ratios
from orl_ldm.learn.metrics import Metrics, importance, weighted_reward
from orl_ldm.learn.randomness import draw, seed_step
from orl_ldm.policy import SquashedPolicy

#: What `--set train.algo=d3rlpy-NAME` calls them -> the names of their configurations in d3rlpy.
NAMES = {"bc": "BCConfig", "awac": "AWACConfig", "td3plusbc": "TD3PlusBCConfig", "iql": "IQLConfig", "cql": "CQLConfig"}


class D3rlpy:
    """State of a run; `epoch` does the learning."""

    def __init__(self, data: Dataset, config: TrainConfig) -> None:
        """Raises UserError without d3rlpy, and for settings that its algorithms cannot follow."""
        try:
            import d3rlpy
        except ImportError:
            raise UserError(f"train.algo = {config.algo!r} needs the extra: pip install -e '.[d3rlpy]'") from None
        for setting in ("hide", "hold", "hold_first"):
            if getattr(config, setting):
                raise UserError(f"train.algo = {config.algo!r} knows no train.{setting}: leave it out, or use critics")
        self.data, self.config, self.seed = data, config.d3rlpy, config.seed
        self.epochs = self.config.epochs
        self.samples = self.config.steps * self.config.batch_size
        name = config.algo.removeprefix("d3rlpy-")
        settings: dict[str, Any] = {"batch_size": self.config.batch_size}
        if name != "bc":
            settings["gamma"] = self.config.gamma
        device = data.observations.device
        place = "cpu:0" if device.type == "cpu" else f"{device.type}:{device.index or 0}"
        self.algorithm = getattr(d3rlpy.algos, NAMES[name])(**settings).create(device=place)
        self.algorithm.create_impl((data.observations.shape[1],), data.actions.shape[1])
        modules = dict(vars(self.algorithm.impl.modules))
        self.actor = modules["imitator" if name == "bc" else "policy"]
        self.policy = SquashedPolicy(data.spec, [layer.out_features for layer in linear(self.actor._encoder)])
        self.policy.to(device)
        self.policy.normalise.fit(data.observations)
        self.arrays = batches(data, self.policy)
        self.parts: dict[str, nn.Module | Optimizer] = {"actor_for_steering": self.policy}
        for part, value in modules.items():
            if isinstance(value, nn.Module):
                self.parts[part] = value
            elif value is not None:
                self.parts[part] = value.optim
        take_over(self.actor, self.policy)

    def epoch(self, index: int) -> Metrics:
        """`steps` updates of d3rlpy's own; everything random is a function of seed and step."""
        from d3rlpy.dataset import TransitionMiniBatch

        sums: dict[str, float] = {}
        for step in range(index * self.config.steps, (index + 1) * self.config.steps):
            seed_step(self.seed, step)
            rows = draw(self.seed, step, len(self.data), self.config.batch_size).numpy()
            self.algorithm._grad_step = step  # delayed updates of the actor count it; a resumed run starts anew
            batch = TransitionMiniBatch(**{name: array[rows] for name, array in self.arrays.items()}, transitions=[])
            for name, loss in self.algorithm.update(batch).items():
                sums[name] = sums.get(name, 0.0) + float(loss)
        take_over(self.actor, self.policy)
        return self.metrics({f"losses/{name}": total / self.config.steps for name, total in sums.items()})

    @torch.no_grad()
    def metrics(self, losses: Metrics) -> Metrics:
        """d3rlpy's losses, and importance sampling of a Beta about the mean action."""
        data = self.data
        log_ratio = log_ratios(self.policy, data)  # (N,)
        learned = data.episode_rewards - data.offsets  # (E,)
        return {
            **losses,
            **importance(log_ratio),
            "offline/estimated_reward": weighted_reward(log_ratio, data.episode, learned) + float(data.offsets.mean()),
        }


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
def take_over(actor: Any, policy: SquashedPolicy) -> None:
    """Copy the weights of a deterministic or Gaussian actor of d3rlpy, whose mean is tanh of its last layer."""
    head = actor._fc if hasattr(actor, "_fc") else actor._mu
    theirs = [*linear(actor._encoder), head]
    for mine, layer in zip([*linear(policy.body), policy.head], theirs, strict=True):
        mine.weight.copy_(layer.weight)
        mine.bias.copy_(layer.bias)
