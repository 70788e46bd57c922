"""Which images a pipeline uses."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from orl_ldm.config import STRICT

Degradation = Literal["bicubic", "bsrgan_light"]


@dataclass(frozen=True)
class DataConfig:
    """Which images a pipeline uses, and how the LR images are made from centre crops of `size` pixels.

    The collector and the search for fixed schedules see only `train_split`, the evaluator only `test_split`.
    """

    __pydantic_config__ = STRICT

    source: str = "synthetic"
    train_split: str = "train"
    test_split: str = "test"
    classes: tuple[str, ...] = ()
    size: PositiveInt = 128
    scale: PositiveInt = 4
    degradation: Degradation = "bicubic"
    seed: NonNegativeInt = 42
