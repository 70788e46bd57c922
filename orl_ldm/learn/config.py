"""What a training run is: its buffers, its reward, its algorithm, and how what it learns is judged."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.config import STRICT
from orl_ldm.reward import RewardWeights, setting


@dataclass(frozen=True)
class PPOConfig:
    """Offline PPO. Defaults are Lyu 2025, Table 1; what the table leaves open follows CleanRL."""

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    advantage: Literal["gae", "vtrace"] = "gae"
    rho_bar: PositiveFloat = 1.0  # of V-trace: the truncation that decides what policy the values are of
    c_bar: PositiveFloat = 1.0  # of V-trace: the truncation that decides how far back a surprise is carried
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

    learning_rate: PositiveFloat = 1e-3  # of actor and plan, at the start; all rates fall along a cosine
    critic_learning_rate: PositiveFloat = 2e-3
    offset_learning_rate: PositiveFloat = 1e-2  # of what an image's rollouts have in common
    gamma: float = 1.0
    critics: Annotated[int, Field(ge=2)] = 5
    critic_hidden: tuple[PositiveInt, ...] = (256, 256)
    huber: PositiveFloat = 0.1  # error from which the critics' loss is linear, in standard deviations of a term
    target_pessimism: float = 4.0  # standard deviations below the mean of the target networks
    first_pessimism: float = 0.0  # the same where an episode begins
    actor_pessimism: float = 0.5  # standard deviations below the mean of the critics
    polyak: float = 0.005
    noise: float = 0.1  # of the actions that critics are asked about: 0 the mean, 1 a sample of the policy
    cloning: float = 0.002  # weight of the log-likelihood of logged actions
    seeking: float = 20.0  # weight of the log-likelihood of the best candidate, times its gain; 0 only climbs
    candidates: PositiveInt = 32  # of each state in which actions are sought
    seekers: PositiveInt = 32  # such states of a batch
    #: How far later decisions, and an episode's first one, go from one plan for all images to what suits each of them.
    sight: Annotated[float, Field(ge=0, le=1)] = 0.5
    first_sight: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip: PositiveFloat = 0.5  # largest KL to the reference, per state, in nats
    epochs: PositiveInt = 20  # the reference is re-anchored at the start of each
    steps: PositiveInt = 80  # gradient steps of an epoch
    batch_size: PositiveInt = 256


@dataclass(frozen=True)
class BPPOConfig:
    """Behaviour proximal PPO. Defaults are those of Zhuang et al. 2023; lengths and rates suit buffers of thousands."""

    __pydantic_config__ = STRICT

    learning_rate: PositiveFloat = 3e-4
    gamma: float = 0.99
    polyak: float = 0.005
    clip: PositiveFloat = 0.25
    clip_decay: Annotated[float, Field(gt=0, le=1)] = 0.96  # of the clip, from one epoch of improvement to the next
    omega: Annotated[float, Field(ge=0.5, lt=1)] = 0.9  # weight of advantages above zero; the others get 1 - omega
    off_policy: bool = False  # go on fitting Q with the policy's own next actions
    max_grad_norm: float = 0.5
    fit_epochs: PositiveInt = 20  # of cloning the behaviour and fitting Q and V
    epochs: PositiveInt = 60  # all of them
    steps: PositiveInt = 100  # gradient steps of an epoch
    batch_size: PositiveInt = 512


@dataclass(frozen=True)
class D3rlpyConfig:
    """d3rlpy's algorithms (see orl_ldm.learn.bridge); what is not here is at d3rlpy's own defaults."""

    __pydantic_config__ = STRICT

    gamma: float = 1.0
    epochs: PositiveInt = 40
    steps: PositiveInt = 100  # gradient steps of an epoch
    batch_size: PositiveInt = 256


Algorithm = Literal[
    "critics", "ppo", "bppo", "d3rlpy-bc", "d3rlpy-awac", "d3rlpy-td3plusbc", "d3rlpy-iql", "d3rlpy-cql"
]
AlgorithmConfig = CriticConfig | PPOConfig | BPPOConfig | D3rlpyConfig


@dataclass(frozen=True)
class JudgeConfig:
    """How policies are judged offline, on images that are held out of learning (see orl_ldm.learn.acceptance)."""

    __pydantic_config__ = STRICT

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.15  # share of the images; 0 accepts the last checkpoint
    candidates: PositiveInt = 8  # checkpoints that are judged, evenly spaced
    margin: NonNegativeFloat = 2.0  # standard errors that the accepted checkpoint may be behind the best
    members: Annotated[int, Field(ge=2)] = 5
    hidden: tuple[PositiveInt, ...] = (64, 64)
    learning_rate: PositiveFloat = 2e-3
    weight_decay: float = 0.01
    steps: PositiveInt = 1500  # of fitted Q evaluation, for each candidate
    batch_size: PositiveInt = 256


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run. `weights`, where given, replace those of the named reward setting."""

    __pydantic_config__ = STRICT

    buffers: tuple[str, ...]
    out: str
    algo: Algorithm = "critics"
    setting: str = "balanced"
    weights: RewardWeights | None = None
    #: One policy for all weights: they become a part of what it observes. `setting` is then what it is judged by.
    dial: bool = False
    #: `within_image` divides each raw term by its standard deviation between the rollouts of one image.
    term_scale: Literal["natural", "within_image"] = "natural"
    image_baseline: bool = True  # learn from rewards minus those of the image's other rollouts
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the images, to see what fewer would have given
    #: Observation features that the learner does not see, by the beginning of their names (`lr/` is a group).
    hide: tuple[str, ...] = ()
    #: Actions that are not learned: name -> value in natural units, in every decision or in the first alone.
    hold: dict[str, float] = field(default_factory=dict)
    hold_first: dict[str, float] = field(default_factory=dict)
    hidden: tuple[PositiveInt, ...] = (128, 128)  # of the policy and of PPO's value network, but not of d3rlpy's
    seed: NonNegativeInt = 42
    device: str = "auto"
    keep_checkpoints: NonNegativeInt = 0  # policies kept in <out>/checkpoints, evenly spaced, for `orl-ldm ope`
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    memory_limit: NonNegativeInt = 0  # bytes; larger buffers are mapped from disk, with the same result; 0: no limit
    critics: CriticConfig = field(default_factory=CriticConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    bppo: BPPOConfig = field(default_factory=BPPOConfig)
    d3rlpy: D3rlpyConfig = field(default_factory=D3rlpyConfig)

    @property
    def algorithm(self) -> AlgorithmConfig:
        """The section of the algorithm in force."""
        return getattr(self, self.section)  # type: ignore[no-any-return]

    @property
    def section(self) -> str:
        """Its name."""
        return self.algo.split("-")[0]

    def reward_weights(self) -> RewardWeights:
        """The weights in force. Raises UserError for an unknown setting."""
        return self.weights if self.weights is not None else setting(self.setting)
