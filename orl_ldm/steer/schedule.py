"""One set of decisions for a whole scene."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orl_ldm.actions import ACTIONS, STOPS, limits
from orl_ldm.diffusion.sampler import Controller, Decision, State
from orl_ldm.env.spaces import decide


@dataclass(frozen=True)
class Schedule:
    """K decisions (K, A) in natural units, the last of which stops, and the scene's normalisation statistics."""

    actions: npt.NDArray[np.float32]
    statistics: tuple[Tensor, ...] = ()

    @property
    def controller(self) -> Controller:
        """The decisions as the sampler takes them, for images that all run in step."""
        table = torch.from_numpy(np.array(self.actions, dtype=np.float32))
        table[-1, list(ACTIONS).index(STOPS)] = limits(STOPS)[0]

        def control(state: State) -> Decision:
            return decide(state, table[state.decisions.cpu().clamp(max=len(table) - 1)].to(state.t.device))

        return control

    @property
    def fidelity(self) -> float:
        """Strength, in [0, 1], of the projection at the end."""
        return float(np.clip(self.actions[-1, list(ACTIONS).index("fidelity")], *limits("fidelity")))

    def faithful(self) -> "Schedule":
        """The same, with full agreement with the LR image and no added texture."""
        actions = np.array(self.actions)
        actions[:, list(ACTIONS).index("fidelity")] = 1
        actions[:, list(ACTIONS).index("grain")] = 0
        return replace(self, actions=actions)
