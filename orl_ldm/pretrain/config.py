"""What a pretraining run is: its images, its two networks, and how long each is trained."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.config import STRICT, PathText
from orl_ldm.images.config import Degradation

#: Residual blocks at full, half and quarter resolution.
Layers = tuple[NonNegativeInt, PositiveInt, PositiveInt]


@dataclass(frozen=True)
class SourceConfig:
    """One image source (see orl_ldm.images.sources); `weight` is how often each of its images is drawn."""

    __pydantic_config__ = STRICT

    source: PathText = "synthetic"
    split: str = "train"
    image_column: str = ""
    classes: tuple[str, ...] = ()
    count: NonNegativeInt = 0
    weight: PositiveFloat = 1.0


@dataclass(frozen=True)
class StageConfig:
    """The optimisation of one network: AdamW, linear warm-up, cosine decay to zero, EMA.

    `batch_size` crops make one optimiser step, however many processes and parts of `gradient_accumulation` they are
    spread over: the result is the same. With `steps` 0 a network stays as it is.
    """

    __pydantic_config__ = STRICT

    steps: NonNegativeInt = 1000
    batch_size: PositiveInt = 16
    crop: PositiveInt = 128
    learning_rate: PositiveFloat = 4e-4
    warmup_steps: NonNegativeInt = 100
    weight_decay: NonNegativeFloat = 1e-4
    gradient_accumulation: PositiveInt = 1
    max_grad_norm: PositiveFloat = 1.0
    ema_decay: float = 0.999
    checkpoint_minutes: NonNegativeFloat = 5.0
    validate_minutes: NonNegativeFloat = 10.0


@dataclass(frozen=True)
class FirstStageConfig:
    """AutoencoderDC (Chen et al. 2024) at f4, `channels` at half and twice that at quarter resolution.

    Raises ValueError where `latent_channels` does not divide the latter: its shortcuts are means and repetitions.
    """

    __pydantic_config__ = STRICT

    latent_channels: PositiveInt = 16
    channels: Annotated[PositiveInt, Field(multiple_of=4)] = 32
    encoder_layers: Layers = (0, 1, 2)
    decoder_layers: Layers = (0, 2, 2)
    latent_noise: NonNegativeFloat = 0.05
    train: StageConfig = field(default_factory=lambda: StageConfig(crop=64, learning_rate=2e-3))

    def __post_init__(self) -> None:
        if 2 * self.channels % self.latent_channels:
            raise ValueError(f"latent_channels, {self.latent_channels}, have to divide 2 x channels, {self.channels}")


@dataclass(frozen=True)
class DenoiserConfig:
    """UNet2DModel on (noisy latent, LR image), v-prediction (Salimans and Ho 2022).

    With a `start`, `anew` takes its first stage alone and trains a new denoiser of these shapes for it. Raises
    ValueError where `norm_num_groups` of its normalisation does not divide every number of channels.
    """

    __pydantic_config__ = STRICT

    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 96, 128)
    layers_per_block: PositiveInt = 2
    norm_num_groups: PositiveInt = 8
    prediction_type: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    anew: bool = False
    train: StageConfig = field(default_factory=StageConfig)

    def __post_init__(self) -> None:
        if wrong := [width for width in self.channels if width % self.norm_num_groups]:
            raise ValueError(f"norm_num_groups, {self.norm_num_groups}, have to divide channels, {wrong[0]} among them")


@dataclass(frozen=True)
class PretrainConfig:
    """A whole pretraining run.

    `start` names an LDM (`embedded`, a folder, a hub id) to go on from instead of untrained networks: its architecture
    and noise schedule are kept, and the shapes set here are not used. `holdout` images are only ever validated on
    (among others by DDIM with `validation_steps` steps); which ones follows from `holdout_seed` alone, so that a second
    training with another `seed` holds out the same. `degradation` makes the LR images. `compile` trains the denoiser
    through torch.compile, which takes some minutes and a C++ compiler once, and is nearly twice as fast on a CPU.
    """

    __pydantic_config__ = STRICT

    name: str = "pretrain"
    seed: NonNegativeInt = 42
    scale: PositiveInt = 4
    start: PathText = ""
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    degradation: Degradation = "bicubic"
    holdout: PositiveInt = 32
    holdout_seed: NonNegativeInt = 42
    previews: PositiveInt = 4
    validation_steps: PositiveInt = 10
    out: PathText = "runs/pretrain"
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    compile: bool = False
    workers: NonNegativeInt = 0
    first_stage: FirstStageConfig = FirstStageConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
