"""The registry of algorithms. A new one is one file with its configuration, and its entries here."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator

from orl_ldm.config import STRICT
from orl_ldm.learn.bppo import BPPOConfig
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.critics import CriticConfig
from orl_ldm.learn.d3rlpy_learner import NAMES, D3rlpyConfig
from orl_ldm.learn.learner import AlgorithmConfig
from orl_ldm.learn.ppo import PPOConfig

#: `train.algo` -> the section of TrainConfig that configures it.
ALGORITHMS: dict[str, str] = {
    "critics": "critics",
    "ppo": "ppo",
    "bppo": "bppo",
    **{f"d3rlpy-{name}": "d3rlpy" for name in NAMES},
}


def known(name: str) -> str:
    """The name of an algorithm. Raises ValueError for another."""
    if name not in ALGORITHMS:
        raise ValueError(f"choose one of {', '.join(ALGORITHMS)}")
    return name


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A whole training run: what all algorithms share, and a section for each."""

    __pydantic_config__ = STRICT

    algo: Annotated[str, AfterValidator(known)] = "critics"
    critics: CriticConfig = field(default_factory=CriticConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    bppo: BPPOConfig = field(default_factory=BPPOConfig)
    d3rlpy: D3rlpyConfig = field(default_factory=D3rlpyConfig)

    @property
    def algorithm(self) -> AlgorithmConfig:
        """The section of the algorithm in force."""
        section: AlgorithmConfig = getattr(self, ALGORITHMS[self.algo])
        return section
