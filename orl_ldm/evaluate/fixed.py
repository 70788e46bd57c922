"""Fixed schedules, the controls that a learned policy must beat: the same decisions for every image.

Of two kinds, in the policy's own action space, each searched on training images by CMA-ES (Hansen 2016) with a given
number of episodes: a *schedule* repeats one action until the episode ends, but for its first `step`, which says where
to start (6 numbers); a *plan* has an action of its own for each of the first three decisions, of which the last is
repeated (15).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cma
import numpy as np
import numpy.typing as npt
import torch

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.sampler import Decision, Driver, State, sample
from orl_ldm.env.spaces import SPEC, decide, effective
from orl_ldm.images.pairs import Batch
from orl_ldm.metrics import Metrics
from orl_ldm.reward import RewardWeights, compose

Floats = npt.NDArray[np.float64]
Action = tuple[float, ...]  # in the order of SPEC.action_names

_LOW, _HIGH = np.array(SPEC.action_low), np.array(SPEC.action_high)


@dataclass(frozen=True)
class FixedSchedule:
    """Action vectors for the decisions of an episode, in order; the last is repeated."""

    actions: tuple[Action, ...]

    @staticmethod
    def of_unit(values: Floats) -> "FixedSchedule":
        """From numbers in [0, 1]: 6 for a first `step` and an action, or 5 for each decision."""
        if len(values) == 1 + len(_LOW):
            values = np.concatenate([values[:1], values[2:], values[1:]])
        rows = _LOW + (_HIGH - _LOW) * np.clip(values, 0, 1).reshape(-1, len(_LOW))
        return FixedSchedule(tuple(map(tuple, rows.tolist())))

    def described(self) -> list[dict[str, float]]:
        """What the sampler does in each decision, by name and rounded, to read."""
        followed = effective(torch.tensor(self.actions)).tolist()
        return [dict(zip(SPEC.action_names, (round(v, 3) for v in action), strict=True)) for action in followed]

    def driver(self) -> Driver:
        """The schedule as the sampler's driver."""
        table = torch.tensor(self.actions)

        def drive(state: State) -> Decision:
            row = state.decisions.cpu().clamp(max=len(table) - 1)
            return decide(state, table[row].to(state.t.device))

        return drive


def _unit(*numbers: tuple[int, float]) -> Floats:
    """Actions as numbers in [0, 1], from pairs of (which of the five it is, natural value)."""
    return np.array([(value - _LOW[which]) / (_HIGH[which] - _LOW[which]) for which, value in numbers])


_REST: Final = ((1, 0.0), (2, 1.0), (3, 0.9), (4, 0.5))  # no noise, detail as it is, most of the projection, some grain

#: kind -> where its search starts: two calls from t = 0.7 T, strong by itself.
STARTS: Final = {
    "schedule": _unit((0, 0.7), (0, 0.1), *_REST),
    "plan": _unit((0, 0.7), *_REST, (0, 0.1), *_REST, (0, 0.0), *_REST),
}


def search(
    ldm: LDM,
    images: Batch,
    metrics: Metrics,
    weights: RewardWeights,
    sampler: SamplerConfig,
    episodes: int,
    seed: int,
    kind: str = "schedule",
    advance: Callable[[int, int], None] = lambda done, total: None,
    remembered: Callable[[Callable[[], float]], float] = lambda play: play(),
) -> tuple[FixedSchedule, float]:
    """(the best of a kind in STARTS, its mean reward) of `episodes // len(images)` tries, each on all images.

    What is tried next follows from the seed and the rewards so far, so that `remembered` may know the reward of a try
    from a search that was interrupted, and need not play it.
    """
    ids = [ref.image_id for ref in images.refs]
    target = images.hr.to(ldm.device)

    def play(values: Floats) -> float:
        driver = FixedSchedule.of_unit(values).driver()
        result = sample(ldm, images.lr, ids, [0] * len(ids), driver, sampler, seed)
        quality = metrics(result.images, target).cpu().numpy()
        cost = np.column_stack([result.nfe.cpu().numpy(), np.zeros(len(ids))])
        return float(compose(np.column_stack([quality, cost]), weights, sampler.nfe_max).mean())

    def reward(values: Floats) -> float:
        return remembered(lambda: play(values))

    budget = max(1, episodes // len(ids))
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "popsize": 8}
    start = STARTS[kind]
    strategy = cma.CMAEvolutionStrategy(start.tolist(), 0.25, options)
    best, best_reward, tried = start, reward(start), 1
    while tried < budget:
        candidates = strategy.ask()[: budget - tried]
        rewards = [reward(np.asarray(candidate)) for candidate in candidates]
        tried += len(candidates)
        advance(tried * len(ids), budget * len(ids))
        if max(rewards) > best_reward:
            best, best_reward = np.asarray(candidates[int(np.argmax(rewards))]), max(rewards)
        if len(candidates) == strategy.popsize:
            strategy.tell(candidates, [-r for r in rewards])
    return FixedSchedule.of_unit(best), best_reward
