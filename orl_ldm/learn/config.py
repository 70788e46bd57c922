"""What a training run reads and what its policy may see, whatever the algorithm; and how policies are judged."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.config import STRICT, PathText
from orl_ldm.reward import Weights, as_weights, setting


@dataclass(frozen=True)
class JudgeConfig:
    """Off-policy evaluation of checkpoints on images that are held out of learning (see orl_ldm.learn.ope)."""

    __pydantic_config__ = STRICT

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.15  # fraction of the images; 0 selects the last checkpoint
    n_candidates: PositiveInt = 8  # checkpoints that are judged, evenly spaced
    margin: NonNegativeFloat = 2.0  # standard errors that the selected checkpoint may be behind the best
    members: Annotated[int, Field(ge=2)] = 5  # networks of the ensemble
    hidden: tuple[PositiveInt, ...] = (64, 64)
    learning_rate: PositiveFloat = 2e-3
    weight_decay: float = 0.01
    steps: PositiveInt = 1500  # gradient steps for each checkpoint
    batch_size: PositiveInt = 256


@dataclass(frozen=True)
class RunConfig:
    """The part of a training's configuration that all algorithms share.

    The reward is that of `setting`, or of `weights` where they are given.
    """

    __pydantic_config__ = STRICT

    buffers: tuple[PathText, ...]
    out: PathText
    algo: str = "critics"  # a name in orl_ldm.learn.algorithms.ALGORITHMS
    setting: str = "balanced"
    weights: Annotated[Weights, AfterValidator(as_weights)] | None = None
    #: One policy for all rewards: their weights are part of the observation. It is judged by those of the run.
    preference_conditioned: bool = False
    image_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # learn from a part of the images
    mask_features: tuple[str, ...] = ()  # features that the policy does not see, by the beginning of their names
    #: Actions that are not learned: name -> value in natural units, in every decision or in the first only.
    fixed_actions: dict[str, float] = field(default_factory=dict)
    fixed_first_actions: dict[str, float] = field(default_factory=dict)
    hidden: tuple[PositiveInt, ...] = (128, 128)  # of the policy and of PPO's value network, but not of d3rlpy's
    seed: NonNegativeInt = 42
    device: str = "auto"
    keep_checkpoints: NonNegativeInt = 0  # policies kept in <out>/checkpoints, evenly spaced, for `orl-ldm ope`
    memory_limit: NonNegativeInt = 0  # bytes; larger buffers are mapped from disk, with the same result; 0: no limit
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def reward_weights(self) -> Weights:
        """The weights of the reward. Raises UserError for an unknown setting."""
        return self.weights if self.weights is not None else setting(self.setting)
