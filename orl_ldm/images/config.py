"""Which images a pipeline uses."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, NonNegativeInt, PositiveInt

from orl_ldm.config import STRICT, PathText
from orl_ldm.images.degrade import read


def _readable(text: str) -> str:
    read(text)
    return text


#: A degradation as orl_ldm.images.degrade reads it.
Degradation = Annotated[str, AfterValidator(_readable)]


@dataclass(frozen=True)
class DataConfig:
    """Which images a pipeline uses, and how the LR images are made from centre crops of `size` pixels.

    The collector and the search for fixed schedules see only `train_split`, the evaluator only `test_split`.
    `image_column` chooses among several image columns of a data set.
    """

    __pydantic_config__ = STRICT

    source: PathText = "synthetic"
    train_split: str = "train"
    test_split: str = "test"
    image_column: str = ""
    classes: tuple[str, ...] = ()
    size: PositiveInt = 128
    scale: PositiveInt = 4
    degradation: Degradation = "bicubic"
    seed: NonNegativeInt = 42
