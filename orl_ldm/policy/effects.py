"""What an action does, which is less than what it says: beyond its limits it does what it does at them.

Ranges reach beyond the limits so that the mean of a distribution with bounded support can say "stop", "no noise" or
"full projection" with ease. Whatever judges actions has to know. To a network that sees the numbers alone, -0.1 and
-0.2 are different ways to stop, and as it blurs the edge between stopping and going on, the one that is nearer to it
seems worth less: that much less, later, is every plan by which the policy comes to stop there.
"""

import torch
from torch import Tensor

from orl_ldm.actions import STOPS, limits
from orl_ldm.policy.beta import to_unit
from orl_ldm.policy.spec import PolicySpec


class Effects:
    """Unit actions (..., A) as inputs (..., width) of networks that judge them.

    Within their limits, from -1 to 1; which of them are at the lower one (for a `t_ratio` that is to stop, and no small
    change from going on a little); and the products of each two, since most effects have their best somewhere inside.
    """

    def __init__(self, spec: PolicySpec, device: torch.device | str) -> None:
        actions = len(spec.action_names)
        ends = torch.tensor([limits(name) for name in spec.action_names]).T  # (2, A)
        self.low, self.high = to_unit(spec, ends).to(device)  # an infinite limit becomes the end of the range
        self.step = spec.action_names.index(STOPS) if STOPS in spec.action_names else None
        self.rows, self.columns = torch.tril_indices(actions, actions, device=device)
        self.width = 2 * actions + len(self.rows)

    def __call__(self, unit: Tensor) -> Tensor:
        """As above."""
        within = 2 * torch.minimum(torch.maximum(unit, self.low), self.high) - 1
        return torch.cat([within, (unit <= self.low).to(unit), within[..., self.rows] * within[..., self.columns]], -1)

    def stops(self, unit: Tensor) -> Tensor:
        """Which (...) of unit actions (..., A) end the episode: those with a `t_ratio` that is at its lower limit."""
        if self.step is None:
            return torch.zeros(unit.shape[:-1], dtype=torch.bool, device=unit.device)
        return torch.le(unit[..., self.step], self.low[self.step])
