"""What an evaluation is."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from orl_ldm.config import STRICT, PathText
from orl_ldm.images.config import Degradation


@dataclass(frozen=True)
class EvaluateConfig:
    """Methods are scored on `images` of the test split; the best fixed schedules are searched on training images.

    `policy` is `embedded`, or a folder, in the place of the pipeline's own training. `degradations` are kinds of input
    that every method is scored on, in the place of `data.degradation` alone; the best fixed schedule of each kind is
    then searched, and scored on all of them. `search_episodes` 0 means as many episodes as the policy's buffer held.
    `prefer` is the preference (see orl_ldm.reward.preference) of a preference-conditioned policy; methods are compared
    under those weights. `frontier` adds rows: the policy at those preferences, and plain DDIM and DPM-Solver++ of
    several lengths. The DDIM baseline has `ddim_steps` and the first of `etas`; the others are rows as well.
    `spandrel` lists weight files of other x4 networks to compare with.
    """

    __pydantic_config__ = STRICT

    out: PathText = "runs/evaluate"
    policy: PathText = ""
    images: NonNegativeInt = 48
    degradations: tuple[Degradation, ...] = ()
    batch_size: PositiveInt = 16
    seed: NonNegativeInt = 7
    ddim_steps: PositiveInt = 100
    etas: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (0.0, 1.0)
    search_images: PositiveInt = 16
    search_episodes: NonNegativeInt = 0
    spandrel: tuple[PathText, ...] = ()
    prefer: str = ""
    frontier: tuple[str, ...] = ()
