"""What an evaluation is."""

from dataclasses import dataclass

from orl_ldm.config import STRICT


@dataclass(frozen=True)
class EvaluateConfig:
    """Methods are scored on `images` of the test split; the best fixed schedule is searched on training images.

    `search_episodes` 0 means as many episodes as the policy's buffer holds: the same budget. `spandrel` lists weight
    files of other x4 networks to compare with.
    """

    __pydantic_config__ = STRICT

    out: str = "runs/evaluate"
    images: int = 48
    batch_size: int = 16
    seed: int = 7
    ddim_steps: int = 100
    search_images: int = 16
    search_episodes: int = 0
    spandrel: tuple[str, ...] = ()
