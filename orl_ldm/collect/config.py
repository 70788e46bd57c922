"""How much is collected, and how the collector explores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.actions import ACTIONS
from orl_ldm.config import STRICT, PathText


def of_actions(table: Mapping[str, object]) -> Mapping[str, object]:
    """A table by action names. Raises ValueError for a name that is no action."""
    if unknown := sorted(set(table) - set(ACTIONS)):
        raise ValueError(f"there is no action {unknown[0]!r}; the actions are {', '.join(ACTIONS)}")
    return table


def is_part(value: object) -> object:
    """A part, K/N. Raises ValueError for anything else."""
    if not isinstance(value, str) or re.fullmatch(r"[1-9][0-9]*/[1-9][0-9]*", value, re.ASCII) is None:
        raise ValueError("give K/N, such as 2/3 for the second of three parts")
    return value


@dataclass(frozen=True)
class CollectConfig:
    """How much to collect, and how to explore.

    Without a `policy` the behaviour is broad: in every decision each action comes from the Beta of its `prior` in
    orl_ldm.actions, or from (alpha, beta) in `prior` here. With one (a policy folder) it explores around that policy,
    whose concentrations are multiplied by `concentration` of each action (1 if not named) from the second decision on;
    `prefer` gives the policy its preference. `alone`: refuse a folder that holds another collection. `part` "2/3" is
    every third unit of work from the second on, so that three machines with a part each publish what one would.
    """

    __pydantic_config__ = STRICT

    out: PathText = "runs/buffer"
    codec: Literal["hdf5", "zarr"] = "hdf5"
    images: NonNegativeInt = 64
    rollouts: PositiveInt = 8
    first_rollout: NonNegativeInt = 0
    alone: bool = False
    unit_images: PositiveInt = 4
    part: Annotated[str, BeforeValidator(is_part)] = "1/1"
    seed: NonNegativeInt = 42
    prior: Annotated[dict[str, tuple[PositiveFloat, PositiveFloat]], AfterValidator(of_actions)] = field(
        default_factory=dict
    )
    policy: PathText = ""
    prefer: str = ""
    concentration: Annotated[dict[str, PositiveFloat], AfterValidator(of_actions)] = field(
        default_factory=lambda: {"t_ratio": 4.0}
    )
