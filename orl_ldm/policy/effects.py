"""Actions as the sampler executes them: values beyond an action's limits are clamped.

A critic that sees raw actions treats -0.1 and -0.2 as different although both stop, so it undervalues stopping near the
boundary. Critics therefore see clamped actions.
"""

import torch
from torch import Tensor

from orl_ldm.actions import STOPS, limits
from orl_ldm.policy.beta import to_unit
from orl_ldm.policy.spec import PolicySpec


class Effects:
    """Unit actions (..., A) -> inputs (..., width) of critics.

    The inputs are the clamped actions in [-1, 1]; flags for actions at their lower limit (a `t_ratio` there stops:
    no small change); and the products of every two, since most effects have their best value inside the range.
    """

    def __init__(self, spec: PolicySpec, device: torch.device | str) -> None:
        actions = len(spec.action_names)
        ends = torch.tensor([limits(name) for name in spec.action_names], dtype=torch.float32).T  # (2, A)
        self.low, self.high = to_unit(spec, ends).to(device)  # an infinite limit becomes the end of the range
        #: Index of the action that stops an episode; None where there is none.
        self.stop_index = spec.action_names.index(STOPS) if STOPS in spec.action_names else None
        self.rows, self.columns = torch.tril_indices(actions, actions, device=device)
        self.width = 2 * actions + len(self.rows)

    def __call__(self, unit: Tensor) -> Tensor:
        """The inputs (..., width) of unit actions (..., A)."""
        clamped = 2 * torch.minimum(torch.maximum(unit, self.low), self.high) - 1
        products = clamped[..., self.rows] * clamped[..., self.columns]
        return torch.cat([clamped, (unit <= self.low).to(unit), products], -1)

    def stops(self, unit: Tensor) -> Tensor:
        """(...) whether unit actions (..., A) stop the episode: their `t_ratio` is at its lower limit."""
        if self.stop_index is None:
            return torch.zeros(unit.shape[:-1], dtype=torch.bool, device=unit.device)
        return torch.le(unit[..., self.stop_index], self.low[self.stop_index])
