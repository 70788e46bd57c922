"""What a pretraining run is: its images, its two networks, and how long each is trained."""

from dataclasses import dataclass, field
from typing import Literal

from orl_ldm.config import STRICT


@dataclass(frozen=True)
class SourceConfig:
    """One image source (see orl_ldm.images.sources) and how often it is drawn relative to its number of images."""

    __pydantic_config__ = STRICT

    source: str = "synthetic"
    split: str = "train"
    classes: tuple[str, ...] = ()
    count: int = 0
    weight: float = 1.0


@dataclass(frozen=True)
class StageConfig:
    """The optimisation of one network: AdamW, linear warm-up, cosine decay to 1 % of the learning rate, EMA."""

    __pydantic_config__ = STRICT

    steps: int = 1000
    batch_size: int = 16
    crop: int = 128
    learning_rate: float = 4e-4
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    gradient_accumulation: int = 1
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    checkpoint_minutes: float = 5.0
    validate_every: int = 1000


@dataclass(frozen=True)
class FirstStageConfig:
    """AutoencoderDC (Chen et al. 2024) at f4, `channels` at half and twice that at quarter resolution."""

    __pydantic_config__ = STRICT

    latent_channels: int = 16
    channels: int = 32
    encoder_layers: tuple[int, int, int] = (0, 1, 2)
    decoder_layers: tuple[int, int, int] = (0, 2, 2)
    latent_noise: float = 0.05
    train: StageConfig = field(default_factory=lambda: StageConfig(crop=64, learning_rate=2e-3))


@dataclass(frozen=True)
class DenoiserConfig:
    """UNet2DModel on (noisy latent, LR image), v-prediction (Salimans and Ho 2022)."""

    __pydantic_config__ = STRICT

    channels: tuple[int, ...] = (64, 96, 128)
    layers_per_block: int = 2
    prediction_type: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    train: StageConfig = field(default_factory=StageConfig)


@dataclass(frozen=True)
class PretrainConfig:
    """A whole pretraining run. `holdout` images (drawn by a hash over all sources) are only ever validated on."""

    __pydantic_config__ = STRICT

    name: str = "pretrain"
    seed: int = 42
    scale: int = 4
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    holdout: int = 32
    out: str = "runs/pretrain"
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    workers: int = 0
    first_stage: FirstStageConfig = FirstStageConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
