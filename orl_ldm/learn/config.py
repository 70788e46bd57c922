"""What a training run is: its buffers, its reward, and one of two algorithms."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.config import STRICT
from orl_ldm.reward import RewardWeights, setting


@dataclass(frozen=True)
class PPOConfig:
    """Offline PPO. Defaults are Lyu 2025, Table 1; what the table leaves open follows CleanRL."""

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: PositiveFloat = 0.2  # of the ratio to the logged behaviour, and of the change of values
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.0
    max_grad_norm: float = 0.5
    epochs: PositiveInt = 1000
    draws: PositiveInt = 1000  # transitions drawn for each epoch
    batch_size: PositiveInt = 64
    passes: PositiveInt = 4  # over each epoch's draw


@dataclass(frozen=True)
class CriticConfig:
    """Bootstrapped pessimistic critics and a clipped actor (see orl_ldm.learn.critics)."""

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 3e-4
    gamma: float = 1.0
    critics: Annotated[int, Field(ge=2)] = 5
    critic_hidden: tuple[int, ...] = (128, 128)
    target_pessimism: float = 1.0  # standard deviations below the mean of the target networks
    actor_pessimism: float = 1.5  # standard deviations below the mean of the critics
    polyak: float = 0.005
    noise: float = 0.3  # of the actions that critics are asked about: 0 the mean, 1 a sample of the policy
    cloning: float = 0.005  # weight of the log-likelihood of logged actions; 0.002 suits rounds with own data
    clip: PositiveFloat = 0.5  # largest KL to the reference, per state, in nats
    epochs: PositiveInt = 40  # the reference is re-anchored at the start of each
    steps: PositiveInt = 100  # gradient steps of an epoch
    batch_size: PositiveInt = 512


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run. `weights`, where given, replace those of the named reward setting."""

    __pydantic_config__ = STRICT

    buffers: tuple[str, ...]
    out: str
    algo: Literal["critics", "ppo"] = "critics"
    setting: str = "balanced"
    weights: RewardWeights | None = None
    #: One policy for all weights: they become a part of what it observes. `setting` is then what it is judged by.
    dial: bool = False
    #: `within_image` divides each raw term by its standard deviation between the rollouts of one image.
    term_scale: Literal["natural", "within_image"] = "natural"
    image_baseline: bool = True  # learn from rewards minus those of the image's other rollouts
    shaping: float = 0.0  # weight of the logged potential
    #: Observation features that the learner does not see, by the beginning of their names (`lr/` is a group).
    hide: tuple[str, ...] = ()
    #: Actions that are not learned: name -> value in natural units, in every decision or in the first alone.
    hold: dict[str, float] = field(default_factory=dict)
    hold_first: dict[str, float] = field(default_factory=dict)
    hidden: tuple[int, ...] = (128, 128)  # of the policy and of PPO's value network
    seed: int = 42
    device: str = "auto"
    memory_limit: NonNegativeInt = 0  # bytes; larger buffers are mapped from disk, with the same result; 0: no limit
    critics: CriticConfig = field(default_factory=CriticConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)

    def reward_weights(self) -> RewardWeights:
        """The weights in force. Raises UserError for an unknown setting."""
        return self.weights if self.weights is not None else setting(self.setting)
