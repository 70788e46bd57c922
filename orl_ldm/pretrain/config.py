"""What a pretraining run is: its images, its two networks, and how long each is trained."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.config import STRICT


@dataclass(frozen=True)
class SourceConfig:
    """One image source (see orl_ldm.images.sources); `weight` is how often each of its images is drawn."""

    __pydantic_config__ = STRICT

    source: str = "synthetic"
    split: str = "train"
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
    """AutoencoderDC (Chen et al. 2024) at f4, `channels` at half and twice that at quarter resolution."""

    __pydantic_config__ = STRICT

    latent_channels: PositiveInt = 16
    channels: PositiveInt = 32
    encoder_layers: tuple[int, int, int] = (0, 1, 2)
    decoder_layers: tuple[int, int, int] = (0, 2, 2)
    latent_noise: NonNegativeFloat = 0.05
    train: StageConfig = field(default_factory=lambda: StageConfig(crop=64, learning_rate=2e-3))


@dataclass(frozen=True)
class DenoiserConfig:
    """UNet2DModel on (noisy latent, LR image), v-prediction (Salimans and Ho 2022).

    `norm_num_groups` of its normalisation must divide every number of channels. With a `start`, `anew` takes its first
    stage alone and trains a new denoiser of these shapes for it.
    """

    __pydantic_config__ = STRICT

    channels: tuple[int, ...] = (64, 96, 128)
    layers_per_block: PositiveInt = 2
    norm_num_groups: PositiveInt = 8
    prediction_type: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    anew: bool = False
    train: StageConfig = field(default_factory=StageConfig)


@dataclass(frozen=True)
class PretrainConfig:
    """A whole pretraining run.

    `start` names an LDM (`embedded`, a folder, a hub id) to go on from instead of untrained networks: its architecture
    and noise schedule are kept, and the shapes set here are not used. `holdout` images are only ever validated on
    (among others by DDIM with `validation_steps` steps); which ones follows from `holdout_seed` alone, so that a second
    training with another `seed` holds out the same.
    """

    __pydantic_config__ = STRICT

    name: str = "pretrain"
    seed: NonNegativeInt = 42
    scale: PositiveInt = 4
    start: str = ""
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    holdout: PositiveInt = 32
    holdout_seed: NonNegativeInt = 42
    previews: PositiveInt = 4
    validation_steps: PositiveInt = 10
    out: str = "runs/pretrain"
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    workers: NonNegativeInt = 0
    first_stage: FirstStageConfig = FirstStageConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
