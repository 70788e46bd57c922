"""What an evaluation is."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from orl_ldm.config import STRICT, PathText


@dataclass(frozen=True)
class EvaluateConfig:
    """Methods are scored on `images` of the test split; the best fixed schedule is searched on training images.

    `search_episodes` 0 means as many episodes as the policy's buffer holds: the same budget. `spandrel` lists weight
    files of other x4 networks to compare with. `prefer` turns the dial of a policy that was trained with one (see
    orl_ldm.reward.preference); methods are then compared under those weights. `frontier` adds rows: the dial at those
    preferences, and plain DDIM and DPM-Solver++ at several numbers of steps. "The LDM alone" is DDIM with
    `ddim_steps` and the first of `etas`; the others are rows as well.
    """

    __pydantic_config__ = STRICT

    out: PathText = "runs/evaluate"
    images: NonNegativeInt = 48
    batch_size: PositiveInt = 16
    seed: NonNegativeInt = 7
    ddim_steps: PositiveInt = 100
    etas: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (0.0, 1.0)
    search_images: PositiveInt = 16
    search_episodes: NonNegativeInt = 0
    spandrel: tuple[PathText, ...] = ()
    prefer: str = ""
    frontier: tuple[str, ...] = ()
