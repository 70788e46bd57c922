"""Which checkpoint becomes the policy: the latest that is not clearly behind the best by fitted Q evaluation.

The learner's own critics cannot judge what it learned, since it climbed them. Every candidate is judged by a fit to the
data that are learned from, and scored on held-out images. No test image takes part.

Candidates are compared in pairs, image by image: most of the judge's error is the same for all of them. Of candidates
that it cannot tell apart the latest has learned the longest. It is selected unless it is behind the best by more than
`margin` standard errors of their difference (compare the one-standard-error rule, Breiman et al. 1984).
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from orl_ldm.learn.checkpoint import Progress
from orl_ldm.learn.config import JudgeConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.ope.estimates import difference, images, of_members
from orl_ldm.learn.ope.fqe import FittedQ
from orl_ldm.policy import TrainedPolicy, with_preference


class CheckpointSelection:
    """Judges candidates of a run. Without held-out images the last candidate is selected, unjudged."""

    def __init__(
        self, policy: TrainedPolicy, learned: Dataset, held_out: Dataset | None, config: JudgeConfig, seed: int
    ) -> None:
        self.learned, self.held_out, self.config, self.seed = learned, held_out, config, seed
        self.selected, self.best = copy.deepcopy(policy), copy.deepcopy(policy)
        self.parts: dict[str, nn.Module] = {"selected": self.selected, "best": self.best}
        self._gains_of_best: Tensor | None = None  # computed again when a run is resumed

    def offer(self, policy: TrainedPolicy, state: Progress) -> None:
        """Judge the policy of epoch `state.epochs`, and select it or not; `state` records both."""
        if self.held_out is not None:
            q = self.fitted(policy)
            gains = q.gains(self.held_out)
            if state.judged and self._gains_of_best is None:
                self._gains_of_best = self.fitted(self.best).gains(self.held_out)
            best = self._gains_of_best if self._gains_of_best is not None else gains
            behind, error = difference(best, gains, self.held_out, self.seed)
            judged = of_members(gains, self.held_out, self.seed)
            found = {"behind": behind, "behind_error": error, "explained_variance": q.explained_variance(self.held_out)}
            state.judged.append({"epoch": state.epochs, **asdict(judged), **found})
            if behind <= 0:
                self.best.load_state_dict(policy.state_dict())
                self._gains_of_best = gains
            elif behind > self.config.margin * error:
                return
        state.selected = state.epochs
        self.selected.load_state_dict(policy.state_dict())

    def fitted(self, policy: TrainedPolicy) -> FittedQ:
        """The judge of one policy, fitted to the data that are learned from."""
        return FittedQ(with_preference(policy, self.learned.weights), self.learned, self.config, self.seed)

    def facts(self, state: Progress, behavior: float) -> dict[str, Any]:
        """The selection for policy.json; `behavior` is the mean reward of the whole buffer.

        The estimated reward is that plus the gain on held-out images, which may be easier or harder than the others.
        """
        if self.held_out is None:
            return {"accepted": {"epoch": state.selected, "why": "the last: too few images to hold any out"}}
        selected = next(entry for entry in state.judged if entry["epoch"] == state.selected)
        why = (
            f"the latest of {len(state.judged)} checkpoints that is level with the best on {images(self.held_out)[1]} "
            f"held-out images (margin: {self.config.margin:g} standard errors)"
        )
        return {
            "accepted": {**selected, "why": why},
            "judged": state.judged,
            "estimated_reward": behavior + selected["reward"] - selected["behavior"],
        }


def is_due(epoch: int, epochs: int, count: int) -> bool:
    """Whether the epoch, counted from 1, is one of `count` evenly spaced ones. The last epoch always is."""
    return epoch * count // epochs > (epoch - 1) * count // epochs


def sentence(facts: Mapping[str, Any]) -> str:
    """The selection in words, from the facts of a policy."""
    selected = facts["accepted"]
    if "reward" not in selected:
        return f"{selected['why']}; estimated reward {facts['estimated_reward']:.4f}, by the learner itself"
    return (
        f"epoch {selected['epoch']}, estimated reward {selected['reward']:.4f} [{selected['low']:.4f}, "
        f"{selected['high']:.4f}] on held-out images (behaviour {selected['behavior']:.4f})"
    )
