"""Fixed schedules, the controls that a learned policy must beat: the same decisions for every image.

Two kinds, in the policy's own action space, are searched on training images by CMA-ES (Hansen 2016) with a given number
of episodes. A *schedule* repeats one action until the episode ends, after a first `t_ratio` that says where to start
(1 + A numbers). A *plan* has an action of its own for each of three decisions and repeats the last (3 A numbers).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cma
import numpy as np
import numpy.typing as npt
import torch

from orl_ldm.actions import ACTIONS, STOPS
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.diffusion.sampler import Controller, Decision, State, sample
from orl_ldm.env.spaces import decide, executed
from orl_ldm.images.pairs import Batch
from orl_ldm.metrics import Metrics, episode_terms
from orl_ldm.reward import Weights, compose

Floats = npt.NDArray[np.float64]

#: First timestep, as a share of T, at which a search begins.
FIRST = 0.7


@dataclass(frozen=True)
class FixedSchedule:
    """Action vectors for the decisions of an episode, in order; the last is repeated."""

    actions: tuple[tuple[float, ...], ...]  # each in the order of ACTIONS

    @staticmethod
    def of_unit(values: Floats) -> "FixedSchedule":
        """From numbers in [0, 1]: a first `t_ratio` and an action (1 + A), or an action for each decision (A each)."""
        if len(values) == 1 + len(ACTIONS):
            values = np.concatenate([values[:1], values[2:], values[1:]])
        low, high = _bounds()
        rows = low + (high - low) * np.clip(values, 0, 1).reshape(-1, len(ACTIONS))
        return FixedSchedule(tuple(map(tuple, rows.tolist())))

    def described(self) -> list[dict[str, float]]:
        """The executed actions of each decision, by name and rounded."""
        followed = executed(torch.tensor(self.actions)).tolist()
        return [dict(zip(ACTIONS, (round(v, 3) for v in action), strict=True)) for action in followed]

    def controller(self) -> Controller:
        """The schedule as the sampler's controller."""
        table = torch.tensor(self.actions)

        def control(state: State) -> Decision:
            row = state.decisions.cpu().clamp(max=len(table) - 1)
            return decide(state, table[row].to(state.t.device))

        return control


def _bounds() -> tuple[Floats, Floats]:
    low, high = zip(*((action.low, action.high) for action in ACTIONS.values()), strict=True)
    return np.array(low), np.array(high)


def _unit(t_ratio: float) -> Floats:
    """The action where a search begins, with this `t_ratio`, as numbers in [0, 1]."""
    low, high = _bounds()
    natural = [t_ratio if name == STOPS else action.start for name, action in ACTIONS.items()]
    return np.asarray((np.array(natural) - low) / (high - low))


def starts() -> dict[str, Floats]:
    """Kind -> where its search begins: two calls from 0.7 T, strong by itself."""
    again = ACTIONS[STOPS].start
    return {
        "schedule": np.concatenate([_unit(FIRST)[:1], _unit(again)]),
        "plan": np.concatenate([_unit(FIRST), _unit(again), _unit(0.0)]),
    }


def search(
    ldm: LDM,
    images: Batch,
    metrics: Metrics,
    weights: Weights,
    sampler: SamplerConfig,
    episodes: int,
    seed: int,
    kind: str = "schedule",
    advance: Callable[[int, int], None] = lambda done, total: None,
    remembered: Callable[[Callable[[], float]], float] = lambda play: play(),
) -> tuple[FixedSchedule, float]:
    """(the best of a kind in `starts()`, its mean reward) of `episodes // len(images)` tries, each on all images.

    What is tried next follows from the seed and the rewards so far, so that `remembered` may know the reward of a try
    from a search that was interrupted, and need not play it.
    """
    ids = [ref.image_id for ref in images.refs]
    target = images.hr.to(ldm.device)

    def play(values: Floats) -> float:
        controller = FixedSchedule.of_unit(values).controller()
        result = sample(ldm, images.lr, ids, [0] * len(ids), controller, sampler, seed)
        terms = episode_terms(metrics(result.images, target), result.nfe.cpu().numpy(), 0.0)
        return float(compose(terms, weights, sampler.nfe_max).mean())

    def reward(values: Floats) -> float:
        return remembered(lambda: play(values))

    budget = max(1, episodes // len(ids))
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9, "popsize": 8}
    start = starts()[kind]
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
