"""How much is collected, and how the collector behaves."""

from dataclasses import dataclass
from typing import Literal

from orl_ldm.config import STRICT


@dataclass(frozen=True)
class CollectConfig:
    """How much to collect, and how to behave.

    `policy`: a policy folder to explore around (its concentrations times `spread`), or empty for the broad Beta whose
    concentrations per action (step, eta, detail, fidelity) are `alpha` and `beta`.
    """

    __pydantic_config__ = STRICT

    out: str = "runs/buffer"
    codec: Literal["hdf5", "zarr"] = "hdf5"
    images: int = 64
    rollouts: int = 8
    first_rollout: int = 0
    unit_images: int = 4
    seed: int = 42
    policy: str = ""
    spread: float = 0.5
    alpha: tuple[float, float, float, float] = (1.0, 1.0, 2.0, 3.0)
    beta: tuple[float, float, float, float] = (1.0, 1.5, 2.0, 1.0)
