"""Which LDM is sampled, and the limits that every episode shares."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from orl_ldm.config import STRICT, PathText


@dataclass(frozen=True)
class LDMConfig:
    """Which LDM, where it runs, and in which precision ("auto": CUDA where there is one)."""

    __pydantic_config__ = STRICT

    id: PathText = "embedded"
    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True)
class SamplerConfig:
    """What every episode shares.

    `projection`: `every_step` projects x0 by decoding and encoding it (needs a cheap, near-lossless first stage);
    `final` pulls x0's low frequencies to the encoded bicubic upscale in between. Both project the final pixels.
    """

    __pydantic_config__ = STRICT

    nfe_max: PositiveInt = 20
    t_floor: NonNegativeFloat = 20.0
    projection: Literal["every_step", "final"] = "every_step"
