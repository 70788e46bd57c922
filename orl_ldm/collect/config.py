"""How much is collected, and how the collector behaves."""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from orl_ldm.config import STRICT

#: One for each of (step, eta, detail, fidelity, grain).
Concentrations = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]

#: alpha and beta of each behaviour.
BEHAVIORS: dict[str, tuple[Concentrations, Concentrations]] = {
    "broad": ((1.0, 1.0, 2.0, 3.0, 1.0), (1.0, 1.5, 2.0, 1.5, 1.2)),
    "paced": ((6.0, 1.0, 4.0, 2.0, 1.0), (1.3, 3.0, 8.0, 0.5, 3.0)),
}


def for_each(value: object) -> object:
    """A number for each action, of one number for all; anything else as it is."""
    return (value,) * 5 if isinstance(value, int | float) else value


def is_part(value: object) -> object:
    """A part, K/N. Raises ValueError for anything else."""
    if not isinstance(value, str) or re.fullmatch(r"[1-9][0-9]*/[1-9][0-9]*", value, re.ASCII) is None:
        raise ValueError("give K/N, such as 2/3 for the second of three parts")
    return value


@dataclass(frozen=True)
class CollectConfig:
    """How much to collect, and how to behave.

    `policy`: a policy folder to explore around, with its concentrations times `concentration`, one factor for each
    action or one for all, from the second decision on (`step` is explored narrowly: far from the mean is another plan);
    or empty for `behaviors`, each with `rollouts` of every image: "broad", the same Beta in every decision, mostly for
    few calls, and "paced", calls that lie evenly in t, up to nfe_max of them. Their concentrations per action (step,
    eta, detail, fidelity, grain) are `alpha` and `beta`, by default those of BEHAVIORS. `prefer` turns the dial
    of a policy that was trained with one.
    `alone`: `out` is to hold nothing but this collection, so that another one's shards there are an error.
    `part` "2/3" is every third unit of work from the second on: three machines or processes that have a part each
    publish what one would, in one buffer or in three.
    """

    __pydantic_config__ = STRICT

    out: str = "runs/buffer"
    codec: Literal["hdf5", "zarr"] = "hdf5"
    images: NonNegativeInt = 64
    rollouts: PositiveInt = 8
    first_rollout: NonNegativeInt = 0
    alone: bool = False
    unit_images: PositiveInt = 4
    part: Annotated[str, BeforeValidator(is_part)] = "1/1"
    seed: NonNegativeInt = 42
    policy: str = ""
    prefer: str = ""
    concentration: Annotated[Concentrations, BeforeValidator(for_each)] = (4.0, 1.0, 1.0, 1.0, 1.0)
    behaviors: Annotated[tuple[Literal["broad", "paced"], ...], Field(min_length=1)] = ("broad",)
    alpha: Concentrations | None = None
    beta: Concentrations | None = None

    @property
    def concentrations(self) -> tuple[Concentrations, Concentrations]:
        """alpha and beta in force, of the first behaviour."""
        alpha, beta = BEHAVIORS[self.behaviors[0]]
        return self.alpha or alpha, self.beta or beta

    def each(self) -> tuple["CollectConfig", ...]:
        """One configuration for each behaviour; around a policy there is but one way to explore."""
        names = self.behaviors[:1] if self.policy else self.behaviors
        return tuple(replace(self, behaviors=(name,)) for name in names)
