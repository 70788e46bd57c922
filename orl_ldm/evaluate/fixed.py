"""The best fixed action and the best fixed schedule: the controls that a learned policy must beat.

A fixed action is one action vector, repeated from the warm start until the episode ends, the same for every image. A
fixed schedule may start elsewhere: its first `step` is free. Both live in the policy's own action space. CMA-ES (Hansen
2016) searches each on training images with a given number of episodes.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass

import cma
import numpy as np
import numpy.typing as npt
import torch

from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.sampler import Decision, Driver, State, sample
from orl_ldm.env.spaces import SPEC, decide
from orl_ldm.images.pairs import Batch
from orl_ldm.metrics import Metrics
from orl_ldm.reward import RewardWeights, compose

Floats = npt.NDArray[np.float64]

#: Bounds of a schedule's five numbers.
_LOW = np.array([SPEC.action_low[0], *SPEC.action_low])
_HIGH = np.array([SPEC.action_high[0], *SPEC.action_high])


@dataclass(frozen=True)
class FixedSchedule:
    """`start` is the first `step` action; the other four are used in every decision."""

    start: float
    step: float
    eta: float
    detail: float
    fidelity: float

    @staticmethod
    def of_unit(values: Floats) -> "FixedSchedule":
        """From five numbers in [0, 1], or from the four of an action, whose `step` is then also the start."""
        five = values if len(values) == len(_LOW) else np.array([values[0], *values])
        return FixedSchedule(*(float(v) for v in _LOW + (_HIGH - _LOW) * np.clip(five, 0, 1)))

    def unit(self) -> Floats:
        """The five numbers in [0, 1]."""
        unit: Floats = (np.array(astuple(self)) - _LOW) / (_HIGH - _LOW)
        return unit

    def driver(self) -> Driver:
        """The schedule as the sampler's driver."""
        first = torch.tensor([self.start, self.eta, self.detail, self.fidelity])
        later = torch.tensor([self.step, self.eta, self.detail, self.fidelity])

        def drive(state: State) -> Decision:
            is_first = (state.decisions == 0)[:, None].cpu()
            return decide(state, torch.where(is_first, first, later).to(state.t.device))

        return drive


#: Where the search for a schedule starts: two calls from t = 0.7 T with the projection, strong by itself.
START = FixedSchedule(start=0.7, step=0.1, eta=0.0, detail=1.0, fidelity=0.9)

#: Where the search for an action starts: three calls, from t = 0.3 T.
START_ACTION = FixedSchedule(start=0.3, step=0.3, eta=0.0, detail=1.0, fidelity=0.9)


def search(
    ldm: LDM,
    images: Batch,
    metrics: Metrics,
    weights: RewardWeights,
    sampler: SamplerConfig,
    episodes: int,
    seed: int,
    one_action: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[FixedSchedule, float]:
    """(the best, its mean reward) of `episodes // len(images)` candidates, each tried on all images.

    With `one_action` the start is not free: it is the action's own step.
    """
    ids = [ref.image_id for ref in images.refs]
    target = images.hr.to(ldm.device)

    def reward(values: Floats) -> float:
        driver = FixedSchedule.of_unit(values).driver()
        result = sample(ldm, images.lr, ids, [0] * len(ids), driver, sampler, seed)
        quality = metrics(result.images, target).cpu().numpy()
        cost = np.column_stack([result.nfe.cpu().numpy(), np.zeros(len(ids))])
        return float(compose(np.column_stack([quality, cost]), weights, sampler.nfe_max).mean())

    budget = max(1, episodes // len(ids))
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "popsize": 8}
    start = START_ACTION.unit()[1:] if one_action else START.unit()
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
