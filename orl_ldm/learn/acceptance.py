"""Which checkpoint becomes the policy: the latest that is not clearly behind the best by an estimate.

The learner's own critics cannot judge what it learned: it climbed them. So every candidate is judged by fitted Q
evaluation (orl_ldm.learn.fqe): what the learner sees tells what a candidate gains on images that neither has seen. No
test image takes part.

The judge's doubt about any policy is larger than what candidates differ by, but most of it is about all of them alike:
so they are compared in pairs, image by image. And of candidates that it cannot tell apart the latest is the one that
has learned the longest: it is accepted unless it is behind the best by more than `margin` standard errors of their
difference (as by the one-standard-error rule, Breiman et al. 1984).
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from orl_ldm.learn.checkpoint import Progress
from orl_ldm.learn.config import JudgeConfig
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.estimates import difference, images, of_members
from orl_ldm.learn.fqe import FittedQ
from orl_ldm.learn.metrics import Metrics, spread
from orl_ldm.learn.passes import in_blocks
from orl_ldm.policy import Policy, Preferring, TrainedPolicy


class Acceptance:
    """Judges candidates for a run. Without held-out data the last candidate is accepted, unjudged."""

    def __init__(
        self, policy: TrainedPolicy, learned: Dataset, held: Dataset | None, config: JudgeConfig, seed: int
    ) -> None:
        self.learned, self.held, self.config, self.seed = learned, held, config, seed
        self.accepted, self.best = copy.deepcopy(policy), copy.deepcopy(policy)
        self.parts: dict[str, nn.Module] = {"accepted": self.accepted, "best": self.best}
        self._gains_of_best: Tensor | None = None  # a run that goes on finds them anew

    @torch.no_grad()
    def habits(self, policy: TrainedPolicy) -> Metrics:
        """How spread and how saturated the policy's actions are in the states that it learns from."""
        spec, data = policy.spec, self.learned
        free = [value is None for value in spec.held] or [True] * len(spec.action_names)
        names = [name if is_free else "" for name, is_free in zip(spec.action_names, free, strict=True)]
        acting = judged_as(policy, data)
        both = in_blocks(lambda observations: torch.cat(acting.concentrations(observations), -1), data.observations)
        alpha, beta = both.chunk(2, dim=-1)
        return spread(alpha, beta, names)

    def offer(self, policy: TrainedPolicy, state: Progress) -> None:
        """Judge the policy of epoch `state.epochs` and accept or leave it; `state` is told of both."""
        if self.held is not None:
            q = self.fitted(policy, self.held)
            gains = q.gains(self.held)
            if state.judged and self._gains_of_best is None:
                self._gains_of_best = self.fitted(self.best, self.held).gains(self.held)
            best = self._gains_of_best if self._gains_of_best is not None else gains
            behind, error = difference(best, gains, self.held, self.seed)
            judged = of_members(gains, self.held, self.seed)
            found = {"behind": behind, "behind_error": error, "explained_variance": q.explained_variance(self.held)}
            state.judged.append({"epoch": state.epochs, **asdict(judged), **found})
            if behind <= 0:
                self.best.load_state_dict(policy.state_dict())
                self._gains_of_best = gains
            elif behind > self.config.margin * error:
                return
        state.accepted = state.epochs
        self.accepted.load_state_dict(policy.state_dict())

    def fitted(self, policy: TrainedPolicy, held: Dataset) -> FittedQ:
        """The judge of one policy, fitted to what is learned from."""
        return FittedQ(judged_as(policy, held), self.learned, self.config, self.seed)


def judged_as(policy: TrainedPolicy, data: Dataset) -> Policy:
    """The policy under the weights that the data are composed with, where it has a dial."""
    return Preferring(policy, tuple(data.weights.values())) if policy.spec.preference_names else policy


def is_due(epoch: int, epochs: int, count: int) -> bool:
    """Whether the epoch, counted from 1, is one of `count` evenly spaced ones, of which the last is always one."""
    return epoch * count // epochs > (epoch - 1) * count // epochs


def facts(state: Progress, judge: Acceptance, behaviour: float) -> dict[str, Any]:
    """What policy.json says of the acceptance; `behaviour` is the mean reward of the whole buffer.

    The estimated reward is that plus the gain on held-out images, which may be easier or harder than the others.
    """
    if judge.held is None:
        return {"accepted": {"epoch": state.accepted, "why": "the last: too few images to hold any out"}}
    accepted = next(entry for entry in state.judged if entry["epoch"] == state.accepted)
    why = (
        f"the latest of {len(state.judged)} checkpoints that is level with the best on {images(judge.held)[1]} "
        f"held-out images (margin: {judge.config.margin:g} standard errors)"
    )
    return {
        "accepted": {**accepted, "why": why},
        "judged": state.judged,
        "estimated_reward": behaviour + accepted["reward"] - accepted["behavior"],
    }


def sentence(facts: Mapping[str, Any]) -> str:
    """The acceptance in words, from the facts of a policy."""
    accepted = facts["accepted"]
    if "reward" not in accepted:
        return f"{accepted['why']}; estimated reward {facts['estimated_reward']:.4f}, by the learner itself"
    return (
        f"epoch {accepted['epoch']}, estimated reward {accepted['reward']:.4f} [{accepted['low']:.4f}, "
        f"{accepted['high']:.4f}] on held-out images (behaviour {accepted['behavior']:.4f})"
    )
